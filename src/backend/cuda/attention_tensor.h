// What a block of attention on tensor cores does beside multiplying: its queries, and the ring that brings keys and
// values. For attention_tensor.cu.
#pragma once

#include "backend/cuda/async_copy.h"
#include "backend/cuda/attention.h"
#include "backend/cuda/half_rows.h"
#include "backend/cuda/rope.h"
#include "backend/cuda/tensor_kernels.h"
#include "backend/cuda/wgmma.h"

namespace llorch::cuda {

inline constexpr int kAttentionThreads = 2 * kWarpgroup;
inline constexpr int kQueriesOfWarpgroup = 64;
static_assert(2 * kQueriesOfWarpgroup == kTensorQueries);
inline constexpr int kOwn = 2;                             // queries of a thread, eight apart
inline constexpr int kUnitBytes = 16;                      // bytes: a unit
inline constexpr int kKeyUnitBytes = kChunk * kUnitBytes;  // a unit of all positions of a chunk
inline constexpr int kValueUnitBytes =
    kKeyUnitBytes + kUnitBytes;  // units differ in their banks: those of a position come together
inline constexpr int kRing = 4;  // chunks

// Elements of an output, as a product makes them; those behind the head's last are nobody's.
template <int kDim>
inline constexpr int kOutputs = kDim == 80 ? 96 : kDim;

template <int kDim>
struct Chunk {
  unsigned char keys[kDim / 8][kKeyUnitBytes];
  unsigned char values[kOutputs<kDim> / 8][kValueUnitBytes];
};

// Of a warpgroup's queries: rounded; what that leaves.
template <int kDim>
using WarpgroupQueries = unsigned char[2][kDim / 8][kQueriesOfWarpgroup * kUnitBytes];

template <int kDim>
struct AttentionShared {
  Chunk<kDim> chunks[kRing];
  WarpgroupQueries<kDim> queries[2];
  uint32_t ends[kTensorQueries];  // of the positions that a query sees; 0: there is no such query
  Barrier full[kRing], empty[kRing];
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
__device__ inline Tile make_tile(const AttentionArgs& a) {
  const AttentionTile rows = a.batch.wide_tiles[gridDim.y - 1 - blockIdx.y];
  const int group = a.kv.n_heads / a.kv.n_kv_heads;
  const int tiles_of_group = (group + a.heads_per_tile - 1) / a.heads_per_tile;
  const int kv_head = static_cast<int>(blockIdx.x) / tiles_of_group;
  const int first = static_cast<int>(blockIdx.x) % tiles_of_group * a.heads_per_tile;
  const int heads = group - first < a.heads_per_tile ? group - first : a.heads_per_tile;
  return {rows.first_row,
          a.batch.positions[rows.first_row],
          static_cast<int>(rows.n_rows),
          kTensorQueries / a.heads_per_tile,
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
    const int at = query[own] % kQueriesOfWarpgroup * kUnitBytes + lane_id() % 4 * 4;
#pragma unroll
    for (int i = 0; i < kDim / 8; ++i) {
      const TwoHalves low = split_to_halves(__fmul_rn(x[own][i].x, inverse));
      const TwoHalves high = split_to_halves(__fmul_rn(x[own][i].y, inverse));
      *reinterpret_cast<unsigned*>(to[0][i] + at) = low.rounded | unsigned{high.rounded} << 16;
      *reinterpret_cast<unsigned*>(to[1][i] + at) = low.left | unsigned{high.left} << 16;
    }
  }
}

// Brings chunks into shared memory, a ring of them, so that warpgroups need not be at the same one. Whole chunks in
// pages of as many positions, the usual case, are copied as they lie, with few instructions: softmax wants them all.
template <int kDim>
class ChunkRing {
 public:
  // Before the block's threads meet.
  __device__ static void init(AttentionShared<kDim>& shared) {
    if (threadIdx.x != 0) return;
    for (int i = 0; i < kRing; ++i) {
      init_barrier(shared.full[i], kAttentionThreads / kWarp);
      init_barrier(shared.empty[i], kAttentionThreads / kWarp);
    }
    publish_barriers();
  }

  // Chunks are counted from the first one here; positions from `end` on are zero.
  __device__ ChunkRing(const AttentionArgs& a, const Tile& tile, AttentionShared<kDim>& shared, uint32_t first_chunk,
                       uint32_t end)
      : a_(a),
        shared_(shared),
        memory_(a.kv.memory + size_t(tile.kv_head) * 2 * a.kv.half_bytes),
        table_(a.batch.pages + a.batch.tables[tile.first_row]),
        first_(first_chunk * kChunk),
        end_(end),
        page_(__ldg(table_ + (first_ >> a.kv.page_shift))) {}

  // Asks for a chunk, one after another, as soon as all have released the one that lies there. One group of copies.
  __device__ void ask(uint32_t i) {
    if (first_ + i * kChunk < end_) {
      if (i >= kRing) wait_for(shared_.empty[i % kRing], (i / kRing - 1) & 1u);
      const uint32_t first = first_ + i * kChunk, next = first + kChunk;
      if (next <= end_ && (1 << a_.kv.page_shift) == kChunk)
        copy_page(shared_.chunks[i % kRing]);
      else
        copy(first, shared_.chunks[i % kRing]);
      if (next < end_) page_ = __ldg(table_ + (next >> a_.kv.page_shift));
    }
    commit_copies();
  }

  // The thread's copies of a chunk are there: wait_for_copies() has said so.
  __device__ void publish(uint32_t i) const {
    publish_to_products();
    __syncwarp();
    if (lane_id() == 0 && first_ + i * kChunk < end_) arrive(shared_.full[i % kRing]);
  }

  __device__ const Chunk<kDim>& get(uint32_t i) const {
    wait_for(shared_.full[i % kRing], i / kRing & 1u);
    return shared_.chunks[i % kRing];
  }
  __device__ void release(uint32_t i) const {
    if (lane_id() == 0) arrive(shared_.empty[i % kRing]);
  }

 private:
  static constexpr int kUnits = kDim / 8, kOfChunk = kUnits * kChunk;  // units of keys, and of values
  static constexpr int kTimes = (kOfChunk + kAttentionThreads - 1) / kAttentionThreads;

  // A unit of values.
  __device__ static unsigned char* value(Chunk<kDim>& to, int i) {
    return to.values[0] + i % kUnits * kValueUnitBytes + i / kUnits * kUnitBytes;
  }

  // The page page_. A thread has every so manyth unit of keys, and of values.
  __device__ void copy_page(Chunk<kDim>& to) const {
    const std::byte* const from = memory_ + size_t{page_} * a_.kv.page_bytes + threadIdx.x * kUnitBytes;
#pragma unroll
    for (int j = 0; j < kTimes; ++j) {
      const int first = j * kAttentionThreads, i = static_cast<int>(threadIdx.x) + first;
      if (first + kAttentionThreads > kOfChunk && i >= kOfChunk) continue;
      copy_16(to.keys[0] + i * kUnitBytes, from + first * kUnitBytes);
      copy_16(value(to, i), from + kOfChunk * kUnitBytes + first * kUnitBytes);
    }
  }

  // From several pages, or with zeros behind the end.
  __device__ void copy(uint32_t first, Chunk<kDim>& to) const {
    const int page_size = 1 << a_.kv.page_shift, in_page = page_size - 1;
    const auto copy_unit = [&](unsigned char* to_unit, int p, size_t unit) {
      const uint32_t position = first + static_cast<uint32_t>(p);
      if (position >= end_) {
        *reinterpret_cast<uint4*>(to_unit) = make_uint4(0, 0, 0, 0);
        return;
      }
      const uint32_t page = __ldg(table_ + (position >> a_.kv.page_shift));
      copy_16(to_unit, memory_ + size_t{page} * a_.kv.page_bytes + unit * kUnitBytes);
    };
    for (int i = static_cast<int>(threadIdx.x); i < kOfChunk; i += kAttentionThreads) {
      const int key = i % kChunk, p = i / kUnits;
      copy_unit(to.keys[0] + i * kUnitBytes, key, static_cast<size_t>(i / kChunk * page_size + (key & in_page)));
      copy_unit(value(to, i), p, static_cast<size_t>(kUnits * page_size + (p & in_page) * kUnits + i % kUnits));
    }
  }

  const AttentionArgs& a_;
  AttentionShared<kDim>& shared_;
  const std::byte* const memory_;
  const uint32_t* const table_;
  const uint32_t first_, end_;  // positions
  uint32_t page_;               // of the next chunk's first position
};

}  // namespace llorch::cuda
