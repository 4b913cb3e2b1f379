// Attention of many rows on tensor cores, for keys and values in f16. A block has up to 128 query vectors that share a
// KV head: heads of its group, and neighbouring rows of one sequence; a warp has 16 of them. Keys and values come in
// chunks of 64 positions; softmax is kept running in float32, weights are rounded to f16.
//
// A query is the sum of two f16, its rounding and the rounding of what is left, 22 bits in all: an error of a score is
// one of its weight's exponent, and with scores of 30 the 11 bits of one f16 were 2.7 times beyond the bound of
// attention. The second product costs a fifth of the kernel's time.
//
// What a query does not see has weight 0. Positions behind the sequence's end are zero in shared memory, whatever the
// pages hold; a NaN value at a later position of the same tile does reach the queries before it.
#include "backend/cuda/async_copy.h"
#include "backend/cuda/attention.h"
#include "backend/cuda/half_rows.h"
#include "backend/cuda/mma.h"
#include "backend/cuda/softmax_tensor.h"
#include "backend/cuda/tensor_kernels.h"

namespace llorch::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kQueries = kThreads / kWarp * 16;
static_assert(kQueries == kTensorQueries);
constexpr int kUnitBytes = 16;

template <int kDim>
struct Chunk {
  unsigned char keys[kDim / 8][kChunk][kUnitBytes];
  unsigned char values[kChunk][kDim * 2 + kUnitBytes];  // rows differ in their banks
};
template <int kDim>
struct Shared {
  Chunk<kDim> chunks[2];
  unsigned char queries[2][kQueries][kDim * 2 + kUnitBytes];  // rounded; what that leaves
  float scale[kQueries];                                      // powers of two that queries were divided by
};

// The query vectors of a block: query i is head i / rows_per_head of row i % rows_per_head.
struct Tile {
  uint32_t first_row, first_position;
  int n_rows, rows_per_head, heads, first_head, kv_head;

  __device__ bool has(int query) const { return query / rows_per_head < heads && query % rows_per_head < n_rows; }
  __device__ int head(int query) const { return first_head + query / rows_per_head; }
  __device__ uint32_t row(int query) const { return first_row + static_cast<uint32_t>(query % rows_per_head); }
  __device__ uint32_t position(int query) const {
    return first_position + static_cast<uint32_t>(query % rows_per_head);
  }
};

// Tiles with many chunks come first.
__device__ Tile make_tile(const AttentionArgs& a) {
  const AttentionTile rows = a.batch.wide_tiles[gridDim.y - 1 - blockIdx.y];
  const int group = a.kv.n_heads / a.kv.n_kv_heads;
  const int tiles_of_group = (group + a.heads_per_tile - 1) / a.heads_per_tile;
  const int kv_head = static_cast<int>(blockIdx.x) / tiles_of_group;
  const int first = static_cast<int>(blockIdx.x) % tiles_of_group * a.heads_per_tile;
  const int heads = group - first < a.heads_per_tile ? group - first : a.heads_per_tile;
  return {rows.first_row,
          a.batch.positions[rows.first_row],
          static_cast<int>(rows.n_rows),
          kQueries / a.heads_per_tile,
          heads,
          kv_head * group + first,
          kv_head};
}

// A warp's own 16 queries, as two f16 each; all are asked for before the first is used.
template <int kDim>
__device__ void load_queries(const AttentionArgs& a, const Tile& tile, Shared<kDim>& s) {
  constexpr int kEach = (kDim + kWarp - 1) / kWarp, kOwn = 16;
  const int first = warp_id() * kOwn, first_head = first / tile.rows_per_head, first_row = first % tile.rows_per_head;
  float x[kOwn][kEach];
#pragma unroll
  for (int i = 0; i < kOwn; ++i) {  // a head has 16 rows or more: they are of two at most
    const bool is_next = first_row + i >= tile.rows_per_head;
    const int row = first_row + i - (is_next ? tile.rows_per_head : 0), head = first_head + (is_next ? 1 : 0);
    const bool has = head < tile.heads && row < tile.n_rows;
    const float* from = qkv_row(a, tile.first_row + static_cast<uint32_t>(has ? row : 0)) +
                        (tile.first_head + (has ? head : 0)) * kDim + lane_id();
#pragma unroll
    for (int j = 0; j < kEach; ++j) x[i][j] = has && j * kWarp + lane_id() < kDim ? from[j * kWarp] : 0.0f;
  }
#pragma unroll
  for (int i = 0; i < kOwn; ++i) {
    unsigned largest = 0;
#pragma unroll
    for (int j = 0; j < kEach; ++j) {
      const unsigned magnitude = __float_as_uint(x[i][j]) & 0x7fffffffu;
      largest = magnitude > largest ? magnitude : largest;
    }
    const float scale = half_scale(exponent_above(__uint_as_float(integer_max(largest))));
#pragma unroll
    for (int j = 0; j < kEach; ++j) {
      const int element = j * kWarp + lane_id();
      if (element >= kDim) continue;
      const TwoHalves halves = split_to_halves(__fmul_rn(x[i][j], inverse_of_power(scale)));
      reinterpret_cast<uint16_t*>(s.queries[0][first + i])[element] = halves.rounded;
      reinterpret_cast<uint16_t*>(s.queries[1][first + i])[element] = halves.left;
    }
    if (lane_id() == 0) s.scale[first + i] = scale;
  }
  __syncwarp();
}

// Brings chunks into shared memory. A thread has units of one position's key, and of the values of some; their pages
// are looked up a chunk ahead.
template <int kDim>
class Copier {
 public:
  __device__ Copier(const AttentionArgs& a, const Tile& tile, uint32_t first_chunk, uint32_t end)
      : a_(a), tile_(tile), table_(a.batch.pages + a.batch.tables[tile.first_row]), end_(end) {
    look_up(first_chunk);
  }

  // Asks for the keys and values of a chunk, of which those from the end on are zero. Chunks come one after another.
  __device__ void copy(uint32_t chunk, Chunk<kDim>& to) {
    const int page_size = 1 << a_.kv.page_shift, in_page = page_size - 1;
    const std::byte* const memory = a_.kv.memory + size_t(tile_.kv_head) * 2 * a_.kv.half_bytes;
    const int key = key_of();
    const bool has_key = chunk * kChunk + static_cast<uint32_t>(key) < end_;
    const std::byte* keys = memory + size_t{key_page_} * a_.kv.page_bytes + (key & in_page) * kUnitBytes;
#pragma unroll
    for (int i = 0; i < kTimes; ++i) {
      const int unit = static_cast<int>(threadIdx.x) / kChunk + i * (kThreads / kChunk);
      if (!kIsEven && unit >= kUnits) continue;
      if (has_key)
        copy_16(to.keys[unit][key], keys + unit * page_size * kUnitBytes);
      else
        *reinterpret_cast<uint4*>(to.keys[unit][key]) = make_uint4(0, 0, 0, 0);
    }
#pragma unroll
    for (int i = 0; i < kTimes; ++i) {
      const int p = value_of(i), unit = (static_cast<int>(threadIdx.x) + i * kThreads) % kUnits;
      if (!kIsEven && p >= kChunk) continue;
      if (chunk * kChunk + static_cast<uint32_t>(p) < end_)
        copy_16(to.values[p] + unit * kUnitBytes, memory + size_t{value_pages_[i]} * a_.kv.page_bytes +
                                                      a_.kv.half_bytes + ((p & in_page) * kUnits + unit) * kUnitBytes);
      else
        *reinterpret_cast<uint4*>(to.values[p] + unit * kUnitBytes) = make_uint4(0, 0, 0, 0);
    }
    commit_copies();
    look_up(chunk + 1);
  }

 private:
  static constexpr int kUnits = kDim / 8, kTimes = (kUnits * kChunk + kThreads - 1) / kThreads;
  static constexpr bool kIsEven = kUnits * kChunk % kThreads == 0;
  static_assert(kThreads % kChunk == 0);

  __device__ static int key_of() { return static_cast<int>(threadIdx.x) % kChunk; }
  __device__ static int value_of(int i) { return (static_cast<int>(threadIdx.x) + i * kThreads) / kUnits; }
  __device__ uint32_t page_of(uint32_t position) const {
    return position < end_ ? __ldg(table_ + (position >> a_.kv.page_shift)) : 0;
  }
  __device__ void look_up(uint32_t chunk) {
    key_page_ = page_of(chunk * kChunk + static_cast<uint32_t>(key_of()));
#pragma unroll
    for (int i = 0; i < kTimes; ++i) value_pages_[i] = page_of(chunk * kChunk + static_cast<uint32_t>(value_of(i)));
  }

  const AttentionArgs& a_;
  const Tile& tile_;
  const uint32_t* const table_;
  const uint32_t end_;
  uint32_t key_page_ = 0, value_pages_[kTimes];
};

// s [16, 64] = the warp's queries times the chunk's keys.
template <int kDim>
__device__ void score(const Shared<kDim>& shared, const Chunk<kDim>& chunk, float (&s)[kChunk / 8][4]) {
  const int lane = lane_id();
#pragma unroll
  for (int n = 0; n < kChunk / 8; ++n)
#pragma unroll
    for (int i = 0; i < 4; ++i) s[n][i] = 0.0f;
#pragma unroll
  for (int k = 0; k < kDim / 16; ++k) {
    unsigned q[2][4];  // rows 0..7 and 8..15 of the first eight elements, then of the next eight
#pragma unroll
    for (int part = 0; part < 2; ++part)
      load_matrices<false>(q[part],
                           shared.queries[part][warp_id() * 16 + lane % 16] + (2 * k + lane / 16) * kUnitBytes);
#pragma unroll
    for (int n = 0; n < kChunk / 8; n += 2) {
      unsigned b[4];  // eight keys: both units; the next eight: both
      load_matrices<false>(b, chunk.keys[2 * k + lane / 8 % 2][n * 8 + lane / 16 * 8 + lane % 8]);
#pragma unroll
      for (int part = 0; part < 2; ++part) {
        multiply_add(s[n], q[part], b[0], b[1]);
        multiply_add(s[n + 1], q[part], b[2], b[3]);
      }
    }
  }
}

// o [16, kDim] += weights times values.
template <int kDim>
__device__ void add_values(const float (&s)[kChunk / 8][4], const Chunk<kDim>& chunk, float (&o)[kDim / 8][4]) {
  const int lane = lane_id();
  const auto pair = [](float low, float high) { return round_to_halves<DType::kF16>(low, high); };
#pragma unroll
  for (int k = 0; k < kChunk / 16; ++k) {
    const unsigned p[4] = {pair(s[2 * k][0], s[2 * k][1]), pair(s[2 * k][2], s[2 * k][3]),
                           pair(s[2 * k + 1][0], s[2 * k + 1][1]), pair(s[2 * k + 1][2], s[2 * k + 1][3])};
#pragma unroll
    for (int n = 0; n < kDim / 8; n += 2) {
      unsigned b[4];  // eight elements: both eights of positions; the next eight: both
      load_matrices<true>(b, chunk.values[k * 16 + lane % 16] + (n + lane / 16) * kUnitBytes);
      multiply_add(o[n], p, b[0], b[1]);
      multiply_add(o[n + 1], p, b[2], b[3]);
    }
  }
}

template <int kDim>
__global__ void __launch_bounds__(kThreads, kDim <= 64 ? 2 : 1) attention_tensor_kernel(const AttentionArgs a) {
  auto& shared = *reinterpret_cast<Shared<kDim>*>(shared_memory());
  wait_for_inputs();
  const Tile tile = make_tile(a);
  const uint32_t end = tile.first_position + static_cast<uint32_t>(tile.n_rows);
  const uint32_t first_chunk = seen(a, tile.first_position).begin / kChunk, end_chunk = (end + kChunk - 1) / kChunk;
  Copier<kDim> copier(a, tile, first_chunk, end);
  copier.copy(first_chunk, shared.chunks[0]);
  load_queries<kDim>(a, tile, shared);
  int query[2];
  float scale[2];
  Range range[2];
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    query[half] = warp_id() * 16 + half * 8 + lane_id() / 4;
    scale[half] = shared.scale[query[half]] * (a.scale * kLog2e);
    range[half] = tile.has(query[half]) ? seen(a, tile.position(query[half])) : Range{0, 0};
  }
  // What all queries of the block see.
  const Range all = {seen(a, end - 1).begin, tile.first_position + 1};
  Softmax softmax;
  float o[kDim / 8][4] = {};
  for (uint32_t c = first_chunk; c < end_chunk; ++c) {
    wait_for_copies<0>();
    __syncthreads();
    const Chunk<kDim>& chunk = shared.chunks[(c - first_chunk) % 2];
    if (c + 1 < end_chunk) copier.copy(c + 1, shared.chunks[(c + 1 - first_chunk) % 2]);
    float s[kChunk / 8][4];
    score<kDim>(shared, chunk, s);
    if ((c + 1) * kChunk > all.end || c * kChunk < all.begin) {
#pragma unroll
      for (int n = 0; n < kChunk / 8; ++n)
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const uint32_t position = c * kChunk + static_cast<uint32_t>(n * 8 + lane_id() % 4 * 2 + i % 2);
          if (!range[i / 2].has(position)) s[n][i] = -INFINITY;
        }
    }
    float factor[2];
    weigh(s, scale, softmax, factor);
    if (factor[0] != 1.0f || factor[1] != 1.0f) {
#pragma unroll
      for (int n = 0; n < kDim / 8; ++n)
#pragma unroll
        for (int i = 0; i < 4; ++i) o[n][i] *= factor[i / 2];
    }
    add_values<kDim>(s, chunk, o);
  }
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const float l = quad_sum(softmax.l[half]);
    if (!tile.has(query[half])) continue;
    const float inverse = __fdiv_rn(1.0f, l);
    float* y = a.y + (size_t{tile.row(query[half])} * a.kv.n_heads + tile.head(query[half])) * kDim + lane_id() % 4 * 2;
#pragma unroll
    for (int n = 0; n < kDim / 8; ++n) {
      y[n * 8] = o[n][2 * half] * inverse;
      y[n * 8 + 1] = o[n][2 * half + 1] * inverse;
    }
  }
}

template <int kDim>
void start(const KernelStream& stream, const AttentionArgs& a) {
  const int tiles_of_group = divide_up(a.kv.n_heads / a.kv.n_kv_heads, a.heads_per_tile);
  launch(stream,
         {dim3(static_cast<unsigned>(a.kv.n_kv_heads * tiles_of_group), static_cast<unsigned>(a.n_tiles)), kThreads,
          sizeof(Shared<kDim>)},
         attention_tensor_kernel<kDim>, a);
}

}  // namespace

bool attention_has_tensor_cores(int32_t head_dim, DType kv) {
  return kv == DType::kF16 && (head_dim == 32 || head_dim == 64 || head_dim == 80 || head_dim == 96 || head_dim == 128);
}

void attention_on_tensor_cores(const KernelStream& stream, const AttentionArgs& args) {
  if (args.kv.head_dim == 32) return start<32>(stream, args);
  if (args.kv.head_dim == 64) return start<64>(stream, args);
  if (args.kv.head_dim == 80) return start<80>(stream, args);
  if (args.kv.head_dim == 96) return start<96>(stream, args);
  start<128>(stream, args);
}

}  // namespace llorch::cuda
