// Attention of many rows on tensor cores, for keys and values in f16. A block has up to 128 query vectors that share a
// KV head: heads of its group, and neighbouring rows of one sequence; a warpgroup has 64 of them. Keys
// and values come in chunks of 64 positions, as core matrices; softmax is kept running in float32, weights are rounded
// to f16. While one of the two blocks of a multiprocessor makes weights, the other one multiplies.
//
// A query is the sum of two f16, its rounding and the rounding of what is left, 22 bits in all: an error of a score is
// one of its weight's exponent, and with scores of 30 the 11 bits of one f16 were 2.7 times beyond the bound of
// attention.
//
// What a query does not see has weight 0. Positions behind the sequence's end are zero in shared memory, whatever the
// pages hold; a NaN value at a later position of the same tile does reach the queries before it.
#include "backend/cuda/async_copy.h"
#include "backend/cuda/attention.h"
#include "backend/cuda/half_rows.h"
#include "backend/cuda/rope.h"
#include "backend/cuda/softmax_tensor.h"
#include "backend/cuda/tensor_kernels.h"
#include "backend/cuda/wgmma.h"

namespace llorch::cuda {
namespace {

constexpr int kThreads = 2 * kWarpgroup;
constexpr int kQueries = kThreads / kWarp * 16;
static_assert(kQueries == kTensorQueries);
constexpr int kUnitBytes = 16;
constexpr int kKeyUnit = kChunk * kUnitBytes;      // a unit of all positions of a chunk
constexpr int kValueUnit = kKeyUnit + kUnitBytes;  // units differ in their banks: those of a position come together
constexpr int kOwn = 2;                            // queries of a thread, eight apart

// Elements of an output, as a product makes them; those behind the head's last are nobody's.
template <int kDim>
inline constexpr int kOutputs = kDim == 80 ? 96 : kDim;

template <int kDim>
struct Chunk {
  unsigned char keys[kDim / 8][kKeyUnit];
  unsigned char values[kOutputs<kDim> / 8][kValueUnit];
};
// Of a warpgroup's 64 queries: rounded; what that leaves.
template <int kDim>
using WarpgroupQueries = unsigned char[2][kDim / 8][64 * kUnitBytes];

template <int kDim>
struct Shared {
  Chunk<kDim> chunks[2];
  WarpgroupQueries<kDim> queries[2];
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

__device__ inline unsigned larger(unsigned a, unsigned b) { return a > b ? a : b; }
__device__ inline unsigned magnitude(float x) { return __float_as_uint(x) & 0x7fffffffu; }

// A thread's part of a query: two neighbouring elements of each eight.
template <int kDim>
using QueryPart = float2[kDim / 8];

// As RopeAppend says. The partner of each element is the thread's own, too.
template <int kDim>
__device__ void rotate_query(const AttentionArgs& a, uint32_t position, QueryPart<kDim>& x) {
  const size_t first = size_t{position} * (kDim / 2);
  if (a.pairs == RopePairs::kInterleaved) {
#pragma unroll
    for (int i = 0; i < kDim / 8; ++i) {
      const size_t at = first + static_cast<size_t>(i * 4 + lane_id() % 4);
      rotate(x[i].x, x[i].y, __ldg(a.cos + at), __ldg(a.sin + at));
    }
    return;
  }
#pragma unroll
  for (int i = 0; i < kDim / 16; ++i) {
    const size_t at = first + static_cast<size_t>(i * 8 + lane_id() % 4 * 2);
    const float2 cos = __ldg(reinterpret_cast<const float2*>(a.cos + at));
    const float2 sin = __ldg(reinterpret_cast<const float2*>(a.sin + at));
    rotate(x[i].x, x[i + kDim / 16].x, cos.x, sin.x);
    rotate(x[i].y, x[i + kDim / 16].y, cos.y, sin.y);
  }
}

// A thread's part of its queries into shared memory, as two f16 each; and the powers of two that they were divided by.
template <int kDim>
__device__ void load_queries(const AttentionArgs& a, const Tile& tile, const int (&query)[kOwn],
                             WarpgroupQueries<kDim>& to, float (&scale)[kOwn]) {
  QueryPart<kDim> x[kOwn];  // all are asked for before the first is used
#pragma unroll
  for (int own = 0; own < kOwn; ++own) {
    const bool has = tile.has(query[own]);
    const int q = has ? query[own] : 0;
    const float* from = qkv_row(a, tile.row(q)) + tile.head(q) * kDim + lane_id() % 4 * 2;
#pragma unroll
    for (int i = 0; i < kDim / 8; ++i)
      x[own][i] = has ? *reinterpret_cast<const float2*>(from + i * 8) : float2{0.0f, 0.0f};
  }
#pragma unroll
  for (int own = 0; own < kOwn; ++own) {
    if (a.cos != nullptr) rotate_query<kDim>(a, tile.position(tile.has(query[own]) ? query[own] : 0), x[own]);
    unsigned largest = 0;  // of the magnitudes' bits
#pragma unroll
    for (const float2& two : x[own]) largest = larger(larger(largest, magnitude(two.x)), magnitude(two.y));
    largest = larger(largest, __shfl_xor_sync(kAllLanes, largest, 1));
    largest = larger(largest, __shfl_xor_sync(kAllLanes, largest, 2));
    scale[own] = half_scale(exponent_above(__uint_as_float(largest)));
    const float inverse = inverse_of_power(scale[own]);
    const int at = query[own] % 64 * kUnitBytes + lane_id() % 4 * 4;
#pragma unroll
    for (int i = 0; i < kDim / 8; ++i) {
      const TwoHalves low = split_to_halves(__fmul_rn(x[own][i].x, inverse));
      const TwoHalves high = split_to_halves(__fmul_rn(x[own][i].y, inverse));
      *reinterpret_cast<unsigned*>(to[0][i] + at) = low.rounded | unsigned{high.rounded} << 16;
      *reinterpret_cast<unsigned*>(to[1][i] + at) = low.left | unsigned{high.left} << 16;
    }
  }
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
        copy_16(to.keys[unit] + key * kUnitBytes, keys + unit * page_size * kUnitBytes);
      else
        *reinterpret_cast<uint4*>(to.keys[unit] + key * kUnitBytes) = make_uint4(0, 0, 0, 0);
    }
#pragma unroll
    for (int i = 0; i < kTimes; ++i) {
      const int p = value_of(i), unit = (static_cast<int>(threadIdx.x) + i * kThreads) % kUnits;
      if (!kIsEven && p >= kChunk) continue;
      if (chunk * kChunk + static_cast<uint32_t>(p) < end_)
        copy_16(to.values[unit] + p * kUnitBytes, memory + size_t{value_pages_[i]} * a_.kv.page_bytes +
                                                      a_.kv.half_bytes + ((p & in_page) * kUnits + unit) * kUnitBytes);
      else
        *reinterpret_cast<uint4*>(to.values[unit] + p * kUnitBytes) = make_uint4(0, 0, 0, 0);
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

// Sums of a thread, as products leave them: of n columns, and four for each eight of them, two of either query.
template <int kColumns>
using Sums = float[kColumns / 2];

// s [64, 64] = the warpgroup's queries times the chunk's keys.
template <int kDim>
__device__ void score(const WarpgroupQueries<kDim>& queries, const Chunk<kDim>& chunk, Sums<kChunk>& s) {
  begin_products();
#pragma unroll
  for (int k = 0; k < kDim / 16; ++k)
#pragma unroll
    for (int part = 0; part < 2; ++part)
      multiply<DType::kF16, kChunk>(s, {queries[part][2 * k], 8 * kUnitBytes, 64 * kUnitBytes},
                                    {chunk.keys[2 * k], 8 * kUnitBytes, kKeyUnit}, k > 0 || part > 0);
  commit_products();
  wait_for_products<0>();
  take_sums(s);
}

// o [64, kOutputs] += weights times values.
template <int kDim>
__device__ void add_values(const Sums<kChunk>& s, const Chunk<kDim>& chunk, Sums<kOutputs<kDim>>& o) {
  unsigned p[kChunk / 16][4];
#pragma unroll
  for (int i = 0; i < kChunk / 4; ++i) p[i / 4][i % 4] = round_to_halves<DType::kF16>(s[2 * i], s[2 * i + 1]);
  begin_products();
#pragma unroll
  for (int k = 0; k < kChunk / 16; ++k)
    multiply<kOutputs<kDim>, true>(o, p[k], {chunk.values[0] + k * 16 * kUnitBytes, kValueUnit, 8 * kUnitBytes}, true);
  commit_products();
  wait_for_products<0>();
  take_sums(o);
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
  const int first_query = warp_id() * 16 + lane_id() / 4, query[kOwn] = {first_query, first_query + 8};
  WarpgroupQueries<kDim>& queries = shared.queries[warp_id() * kWarp / kWarpgroup];
  float scale[kOwn];  // of scores, to powers of two
  load_queries<kDim>(a, tile, query, queries, scale);
  for (float& s : scale) s *= a.scale * kLog2e;
  // What all queries of the block see.
  const Range all = {seen(a, end - 1).begin, tile.first_position + 1};
  Softmax softmax;
  Sums<kOutputs<kDim>> o = {};
  for (uint32_t c = first_chunk; c < end_chunk; ++c) {
    wait_for_copies<0>();
    publish_to_products();
    __syncthreads();
    const Chunk<kDim>& chunk = shared.chunks[(c - first_chunk) % 2];
    if (c + 1 < end_chunk) copier.copy(c + 1, shared.chunks[(c + 1 - first_chunk) % 2]);
    Sums<kChunk> s;
    score<kDim>(queries, chunk, s);
    if ((c + 1) * kChunk > all.end || c * kChunk < all.begin) {
#pragma unroll
      for (int own = 0; own < kOwn; ++own) {
        const Range range = tile.has(query[own]) ? seen(a, tile.position(query[own])) : Range{0, 0};
#pragma unroll
        for (int n = 0; n < kChunk / 8; ++n)
#pragma unroll
          for (int i = 0; i < 2; ++i)
            if (!range.has(c * kChunk + static_cast<uint32_t>(n * 8 + lane_id() % 4 * 2 + i)))
              s[4 * n + 2 * own + i] = -INFINITY;
      }
    }
    float factor[kOwn];
    weigh(reinterpret_cast<float(&)[kChunk / 8][4]>(s), scale, softmax, factor);
#pragma unroll
    for (int i = 0; i < kOutputs<kDim> / 2; ++i) o[i] *= factor[i % 4 / 2];
    add_values<kDim>(s, chunk, o);
  }
#pragma unroll
  for (int own = 0; own < kOwn; ++own) {
    const float l = quad_sum(softmax.l[own]);
    if (!tile.has(query[own])) continue;
    const float inverse = __fdiv_rn(1.0f, l);
    const uint32_t row = tile.row(query[own]);
    const int column = tile.head(query[own]) * kDim + lane_id() % 4 * 2;
    const auto put = [&](int i, float first, float second) {
      if (a.half_y.units != nullptr)
        put_halves(a, row, column + i, first, second);
      else
        *reinterpret_cast<float2*>(a.y + size_t{row} * static_cast<size_t>(a.kv.n_heads * kDim) + column + i) =
            float2{first, second};
    };
#pragma unroll
    for (int n = 0; n < kDim / 8; ++n) put(n * 8, o[4 * n + 2 * own] * inverse, o[4 * n + 2 * own + 1] * inverse);
    if (a.half_y.units != nullptr && column == 0) a.half_y.scale[row] = half_output_scale(a);
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
