// Attention of decodes on tensor cores, where each row is a sequence of its own; for keys and values in f16. A block
// has a row and up to 16 heads that share a KV head; its warps take pieces of the sequence in turn, each with a softmax
// of its own, and at the end these are joined in ascending order.
//
// Keys and values go from the pages straight into the registers that the products read them from: which element of K
// (or of the output) has which place in a product is free, as long as both factors agree, so each lane reads whole
// units of 16 bytes. Those of earlier steps are asked for before the kernel waits for its inputs. The row's own, and
// its queries, are rotated here, and appended to the pages. A query is the sum of two f16, as in attention_tensor.cu.
#include "backend/cuda/attention.h"
#include "backend/cuda/mma.h"
#include "backend/cuda/rope.h"
#include "backend/cuda/softmax_tensor.h"
#include "backend/cuda/tensor_kernels.h"

namespace llorch::cuda {
namespace {

constexpr int kMaxWarps = 8, kFewWarps = 4;

// Heads of a block: a product has 16 queries, of which a thread has parts of two, eight apart; with up to 8 heads it
// has one, and nothing is computed for the other.
template <int kOfThread>
inline constexpr int kHeads = 8 * kOfThread;

// How a head's elements lie in products. Of scores, a step is 32 elements: lane % 4 has eight of them, one unit. Of
// values, a part is 64: lane / 4 has eight.
template <int kDim>
struct Cut {
  static constexpr int kSteps = (kDim + 31) / 32, kParts = (kDim + 63) / 64;
  static constexpr int kPositions = kDim <= 64 ? 32 : 16;  // of a piece
};

template <int kDim, int kOfThread>
struct Shared {
  static constexpr int kN = kHeads<kOfThread>;
  static constexpr int kStride = kDim + 4;  // floats; rows differ in their banks
  alignas(16) uint16_t key[kDim];           // the row's own, rotated
  alignas(16) uint16_t value[kDim];
  float queries[kN][kStride];
  float scale[kN];
  float m[kMaxWarps][kN], l[kMaxWarps][kN];
  __device__ float* output(int warp, int head) {  // [warps][heads][kStride]
    return reinterpret_cast<float*>(this + 1) + (warp * kN + head) * kStride;
  }
  static constexpr size_t bytes(int warps) {
    return sizeof(Shared) + static_cast<size_t>(warps) * kN * kStride * sizeof(float);
  }
};

// What a block works on.
struct Work {
  uint32_t row, position;
  int kv_head, first_head, n_heads;
  Range range;
  const uint32_t* table;
  bool is_first_of_group;
};
__device__ inline Work find_work(const AttentionArgs& a, int heads) {
  const int group = a.kv.n_heads / a.kv.n_kv_heads, tiles = (group + heads - 1) / heads;
  const int first = static_cast<int>(blockIdx.x) % tiles * heads;
  Work w;
  w.row = blockIdx.y;
  w.position = a.batch.positions[w.row];
  w.kv_head = static_cast<int>(blockIdx.x) / tiles;
  w.first_head = w.kv_head * group + first;
  w.n_heads = group - first < heads ? group - first : heads;
  w.range = seen(a, w.position);
  w.table = a.batch.pages + a.batch.tables[w.row];
  w.is_first_of_group = first == 0;
  return w;
}

__device__ std::byte* head_in_page(const AttentionArgs& a, const Work& w, uint32_t position) {
  return a.kv.memory + size_t{w.table[position >> a.kv.page_shift]} * a.kv.page_bytes +
         size_t(w.kv_head) * 2 * a.kv.half_bytes;
}

// Where a lane's keys and values of a piece lie: of eight positions n, one; of eight positions n, two in turn.
__device__ inline uint32_t key_position(uint32_t first, int n) {
  return first + static_cast<uint32_t>(n * 8 + lane_id() / 4);
}
__device__ inline uint32_t value_position(uint32_t first, int n, int i) {
  return first + static_cast<uint32_t>(n * 8 + lane_id() % 4 * 2 + i);
}
__device__ inline int key_unit(int step) { return step * 4 + lane_id() % 4; }
__device__ inline int value_unit(int part) { return part * 8 + lane_id() / 4; }

// A warp's piece of the sequence: units of 16 bytes; zeros where nothing is seen.
template <int kDim>
struct Piece {
  using C = Cut<kDim>;
  static constexpr int kEights = C::kPositions / 8, kUnits = kDim / 8;
  uint4 keys[kEights][C::kSteps];
  uint4 values[kEights][C::kParts][2];

  // Those of earlier positions.
  __device__ void load(const AttentionArgs& a, const Work& w, uint32_t first) {
    const int page_size = 1 << a.kv.page_shift, in_page = page_size - 1;
    const auto is_there = [&](uint32_t position) { return w.range.has(position) && position != w.position; };
#pragma unroll
    for (int n = 0; n < kEights; ++n) {  // a page has whole eights
      const uint32_t eight = first + static_cast<uint32_t>(n * 8);
      const std::byte* head = eight < w.range.end ? head_in_page(a, w, eight) : nullptr;
      const uint32_t at = key_position(first, n);
#pragma unroll
      for (int step = 0; step < C::kSteps; ++step)
        keys[n][step] = is_there(at) && key_unit(step) < kUnits
                            ? reinterpret_cast<const uint4*>(head)[key_unit(step) * page_size + int(at & in_page)]
                            : make_uint4(0, 0, 0, 0);
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const uint32_t p = value_position(first, n, i);
#pragma unroll
        for (int part = 0; part < C::kParts; ++part)
          values[n][part][i] =
              is_there(p) && value_unit(part) < kUnits
                  ? reinterpret_cast<const uint4*>(head + a.kv.half_bytes)[int(p & in_page) * kUnits + value_unit(part)]
                  : make_uint4(0, 0, 0, 0);
      }
    }
  }

  // The row's own.
  template <int kOfThread>
  __device__ void add_own(const Shared<kDim, kOfThread>& s, uint32_t own, uint32_t first) {
#pragma unroll
    for (int n = 0; n < kEights; ++n) {
#pragma unroll
      for (int step = 0; step < C::kSteps; ++step)
        if (key_position(first, n) == own && key_unit(step) < kUnits)
          keys[n][step] = reinterpret_cast<const uint4*>(s.key)[key_unit(step)];
#pragma unroll
      for (int i = 0; i < 2; ++i)
#pragma unroll
        for (int part = 0; part < C::kParts; ++part)
          if (value_position(first, n, i) == own && value_unit(part) < kUnits)
            values[n][part][i] = reinterpret_cast<const uint4*>(s.value)[value_unit(part)];
    }
  }
};

// The block's queries and the row's own key and value into shared memory, these into their page, too.
template <int kDim, int kOfThread>
__device__ void load_row(const AttentionArgs& a, const Work& w, Shared<kDim, kOfThread>& s) {
  constexpr int kHalf = kDim / 2;
  const bool rotates = a.cos != nullptr;
  const float* row = qkv_row(a, w.row);
  const float *queries = row + w.first_head * kDim, *key = row + (a.kv.n_heads + w.kv_head) * kDim;
  const float* value = key + a.kv.n_kv_heads * kDim;
  for (int i = static_cast<int>(threadIdx.x); i < (w.n_heads + 1) * kHalf; i += static_cast<int>(blockDim.x)) {
    const int head = i / kHalf, j = i % kHalf;
    const bool is_key = head == w.n_heads;
    if (is_key && !rotates) break;
    const float* from = is_key ? key : queries + head * kDim;
    const Pair d = pair_of(a.pairs, kHalf, j);
    float first = from[d.first], second = from[d.second];
    const size_t angle = size_t{w.position} * kHalf + static_cast<size_t>(j);
    if (rotates) rotate(first, second, a.cos[angle], a.sin[angle]);
    if (is_key) {
      s.key[d.first] = narrow_f16(first);
      s.key[d.second] = narrow_f16(second);
      s.value[d.first] = narrow_f16(value[d.first]);
      s.value[d.second] = narrow_f16(value[d.second]);
    } else {
      s.queries[head][d.first] = first;
      s.queries[head][d.second] = second;
    }
  }
  std::byte* const head = head_in_page(a, w, w.position);
  const int page_size = 1 << a.kv.page_shift, in_page = static_cast<int>(w.position) & (page_size - 1);
  auto* keys = reinterpret_cast<uint4*>(head) + in_page;
  auto* values = reinterpret_cast<uint4*>(head + a.kv.half_bytes) + in_page * (kDim / 8);
  const int unit = static_cast<int>(threadIdx.x);
  if (!rotates && unit < kDim / 8) {  // a kernel before this one has appended them
    reinterpret_cast<uint4*>(s.key)[unit] = keys[unit * page_size];
    reinterpret_cast<uint4*>(s.value)[unit] = values[unit];
  }
  __syncthreads();
  if (!rotates || !w.is_first_of_group || unit >= kDim / 8) return;
  keys[unit * page_size] = reinterpret_cast<const uint4*>(s.key)[unit];
  values[unit] = reinterpret_cast<const uint4*>(s.value)[unit];
}

// A warp's queries as the products read them: heads lane / 4 and eight more, each the sum of two f16, divided by a
// power of two.
template <int kDim, int kOfThread>
struct Queries {
  using C = Cut<kDim>;
  unsigned words[2][C::kSteps][2][4] = {};  // rounded, and what that leaves; of a step, two products
  float scale[2] = {1.0f, 1.0f};            // of the thread's heads

  __device__ Queries(const Work& w, const Shared<kDim, kOfThread>& s) {
#pragma unroll
    for (int half = 0; half < kOfThread; ++half) {
      const int head = lane_id() / 4 + half * 8;
      float x[C::kSteps][8], largest = 0.0f;
#pragma unroll
      for (int step = 0; step < C::kSteps; ++step)
#pragma unroll
        for (int i = 0; i < 8; ++i) {
          const bool has = head < w.n_heads && key_unit(step) < kDim / 8;
          x[step][i] = has ? s.queries[head][key_unit(step) * 8 + i] : 0.0f;
          const float magnitude = fabsf(x[step][i]);
          largest = magnitude > largest ? magnitude : largest;
        }
      largest = quad_max(largest);
      scale[half] = half_scale(exponent_above(largest));
      const float inverse = inverse_of_power(scale[half]);
#pragma unroll
      for (int step = 0; step < C::kSteps; ++step)
#pragma unroll
        for (int i = 0; i < 8; i += 2) {
          const TwoHalves low = split_to_halves(__fmul_rn(x[step][i], inverse));
          const TwoHalves high = split_to_halves(__fmul_rn(x[step][i + 1], inverse));
          words[0][step][i / 4][half + i % 4] = low.rounded | unsigned{high.rounded} << 16;
          words[1][step][i / 4][half + i % 4] = low.left | unsigned{high.left} << 16;
        }
    }
  }
};

// s [16, positions] = queries times keys.
template <int kDim, int kOfThread>
__device__ void score(const Queries<kDim, kOfThread>& q, const Piece<kDim>& piece,
                      float (&s)[Piece<kDim>::kEights][4]) {
#pragma unroll
  for (int n = 0; n < Piece<kDim>::kEights; ++n) {
#pragma unroll
    for (int i = 0; i < 4; ++i) s[n][i] = 0.0f;
#pragma unroll
    for (int step = 0; step < Cut<kDim>::kSteps; ++step) {
      const uint4 k = piece.keys[n][step];
#pragma unroll
      for (int part = 0; part < 2; ++part) {
        multiply_add(s[n], q.words[part][step][0], k.x, k.y);
        multiply_add(s[n], q.words[part][step][1], k.z, k.w);
      }
    }
  }
}

// What a warp has summed up: of a part of 64 elements, product j makes elements j, 8 + j, 16 + j, ...
template <int kDim>
using Output = float[Cut<kDim>::kParts][8][4];

// o += weights times values.
template <int kDim>
__device__ void add_values(const float (&s)[Piece<kDim>::kEights][4], const Piece<kDim>& piece, Output<kDim>& o) {
  const auto pair = [](float low, float high) { return round_to_halves<DType::kF16>(low, high); };
  const auto low_halves = [](unsigned a, unsigned b) { return (a & 0xffffu) | b << 16; };
  const auto high_halves = [](unsigned a, unsigned b) { return a >> 16 | (b & 0xffff0000u); };
#pragma unroll
  for (int n = 0; n < Piece<kDim>::kEights; n += 2) {
    const unsigned p[4] = {pair(s[n][0], s[n][1]), pair(s[n][2], s[n][3]), pair(s[n + 1][0], s[n + 1][1]),
                           pair(s[n + 1][2], s[n + 1][3])};
#pragma unroll
    for (int part = 0; part < Cut<kDim>::kParts; ++part) {
      const uint4 v[4] = {piece.values[n][part][0], piece.values[n][part][1], piece.values[n + 1][part][0],
                          piece.values[n + 1][part][1]};
      const auto add_two = [&](int j, unsigned a, unsigned b, unsigned c, unsigned d) {
        multiply_add(o[part][j], p, low_halves(a, b), low_halves(c, d));
        multiply_add(o[part][j + 1], p, high_halves(a, b), high_halves(c, d));
      };
      add_two(0, v[0].x, v[1].x, v[2].x, v[3].x);
      add_two(2, v[0].y, v[1].y, v[2].y, v[3].y);
      add_two(4, v[0].z, v[1].z, v[2].z, v[3].z);
      add_two(6, v[0].w, v[1].w, v[2].w, v[3].w);
    }
  }
}

// A warp leaves its sums for the others.
template <int kDim, int kOfThread>
__device__ void leave(const Softmax& softmax, const Output<kDim>& o, Shared<kDim, kOfThread>& s) {
#pragma unroll
  for (int half = 0; half < kOfThread; ++half) {
    const int head = lane_id() / 4 + half * 8;
    const float l = quad_sum(softmax.l[half]);
    if (lane_id() % 4 == 0) {
      s.m[warp_id()][head] = softmax.m[half];
      s.l[warp_id()][head] = l;
    }
    float* const out = s.output(warp_id(), head);
#pragma unroll
    for (int part = 0; part < Cut<kDim>::kParts; ++part)
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const int d = (part * 8 + lane_id() % 4 * 2 + i) * 8, at = 2 * half + i;
        if (d >= kDim) continue;
#pragma unroll
        for (int j = 0; j < 8; j += 4)
          *reinterpret_cast<float4*>(out + d + j) =
              make_float4(o[part][j][at], o[part][j + 1][at], o[part][j + 2][at], o[part][j + 3][at]);
      }
  }
}

// By all threads: the warps' sums in ascending order.
template <int kDim, int kOfThread>
__device__ void join(const AttentionArgs& a, const Work& w, Shared<kDim, kOfThread>& s) {
  for (int i = 2 * static_cast<int>(threadIdx.x); i < w.n_heads * kDim; i += 2 * static_cast<int>(blockDim.x)) {
    const int head = i / kDim, d = i % kDim;
    float m = -INFINITY, l = 0.0f;
    float2 sum = {0.0f, 0.0f};
    for (int warp = 0; warp < n_warps(); ++warp) m = fmaxf(m, s.m[warp][head]);
    for (int warp = 0; warp < n_warps(); ++warp) {
      const float factor = quick_exp2((s.m[warp][head] - m) * s.scale[head]);
      const float2 o = *reinterpret_cast<const float2*>(s.output(warp, head) + d);
      l = __fmaf_rn(s.l[warp][head], factor, l);
      sum = {__fmaf_rn(o.x, factor, sum.x), __fmaf_rn(o.y, factor, sum.y)};
    }
    sum = {__fdiv_rn(sum.x, l), __fdiv_rn(sum.y, l)};
    const int column = w.first_head * kDim + i;
    if (a.half_y.units != nullptr)
      put_halves(a, w.row, column, sum.x, sum.y);
    else
      *reinterpret_cast<float2*>(a.y + size_t{w.row} * static_cast<size_t>(a.kv.n_heads * kDim) + column) = sum;
  }
  if (a.half_y.units != nullptr && w.first_head == 0 && threadIdx.x == 0) a.half_y.scale[w.row] = half_output_scale(a);
}

template <int kDim, int kOfThread>
__global__ void __launch_bounds__(kMaxWarps* kWarp) attention_tensor_decode_kernel(const AttentionArgs a) {
  using P = Piece<kDim>;
  constexpr uint32_t kPositions = Cut<kDim>::kPositions;
  auto& s = *reinterpret_cast<Shared<kDim, kOfThread>*>(shared_memory());
  const Work w = find_work(a, kHeads<kOfThread>);
  const uint32_t stride = kPositions * static_cast<uint32_t>(n_warps());
  uint32_t first = w.range.begin / kPositions * kPositions + static_cast<uint32_t>(warp_id()) * kPositions;
  if (a.cos == nullptr) wait_for_inputs();  // keys of the same step may have been appended just before
  P piece;
  piece.load(a, w, first);
  wait_for_inputs();
  load_row(a, w, s);
  const Queries<kDim, kOfThread> queries(w, s);
  const float scale[2] = {queries.scale[0] * (a.scale * kLog2e), queries.scale[1] * (a.scale * kLog2e)};
  if (warp_id() == 0 && lane_id() % 4 == 0)
    for (int half = 0; half < kOfThread; ++half) s.scale[lane_id() / 4 + half * 8] = scale[half];
  Softmax softmax;
  Output<kDim> o = {};
  while (first < w.range.end) {
    if (w.position - first < kPositions) piece.add_own(s, w.position, first);
    float scores[P::kEights][4];
    score(queries, piece, scores);
    if (first + kPositions > w.range.end || first < w.range.begin) {
#pragma unroll
      for (int n = 0; n < P::kEights; ++n)
#pragma unroll
        for (int i = 0; i < 4; ++i)
          if (!w.range.has(value_position(first, n, i % 2))) scores[n][i] = -INFINITY;
    }
    float factor[2] = {1.0f, 1.0f};
    weigh<kOfThread>(scores, scale, softmax, factor);
#pragma unroll
    for (auto& part : o)
#pragma unroll
      for (auto& product : part)
#pragma unroll
        for (int i = 0; i < 4; ++i) product[i] *= factor[i / 2];
    add_values<kDim>(scores, piece, o);
    first += stride;
    if (first < w.range.end) piece.load(a, w, first);
  }
  leave<kDim>(softmax, o, s);
  __syncthreads();
  join(a, w, s);
}

template <int kDim, int kOfThread>
void start(const KernelStream& stream, const AttentionArgs& a) {
  const int tiles = a.kv.n_kv_heads * divide_up(a.kv.n_heads / a.kv.n_kv_heads, kHeads<kOfThread>);
  int warps = tiles * a.n_tiles <= stream.n_multiprocessors ? kMaxWarps : kFewWarps;
  if (Shared<kDim, kOfThread>::bytes(warps) > stream.shared.of_block) warps = kFewWarps;
  launch(stream,
         {dim3(static_cast<unsigned>(tiles), static_cast<unsigned>(a.n_tiles)),
          dim3(static_cast<unsigned>(warps * kWarp)), Shared<kDim, kOfThread>::bytes(warps)},
         attention_tensor_decode_kernel<kDim, kOfThread>, a);
}

template <int kDim>
void choose_heads(const KernelStream& stream, const AttentionArgs& a) {
  if (a.kv.n_heads / a.kv.n_kv_heads <= kHeads<1>) return start<kDim, 1>(stream, a);
  start<kDim, 2>(stream, a);
}

}  // namespace

void attention_of_decodes_on_tensor_cores(const KernelStream& stream, const AttentionArgs& args) {
  if (args.kv.head_dim == 32) return choose_heads<32>(stream, args);
  if (args.kv.head_dim == 64) return choose_heads<64>(stream, args);
  if (args.kv.head_dim == 80) return choose_heads<80>(stream, args);
  if (args.kv.head_dim == 96) return choose_heads<96>(stream, args);
  choose_heads<128>(stream, args);
}

}  // namespace llorch::cuda
