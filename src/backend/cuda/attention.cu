// Attention in chunks of 64 positions (docs/numerics.md). A block has up to eight query vectors that share a KV head:
// heads of its group, and rows of one sequence. Scores: a thread is a position. Softmax: a warp is a query. Values: a
// thread is an element of the output.
//
// Where the tiles alone cannot fill the device, several blocks share a tile: each leaves the sums of its chunks, and
// the block that comes last joins them left to right.
#include "backend/cuda/attention.h"

namespace llorch::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kPagesPerChunk = 4;  // of 16 positions

// A chunk's values go through shared memory if they fit into so much of it (all but float32 of the largest heads):
// their loads are under way while scores are made.
constexpr int kStagedBytes = 32 << 10;
constexpr int kStagedUnits = kStagedBytes / 16 / kThreads;  // of a thread

__host__ __device__ inline int chunk_value_bytes(const KvView& kv) { return kChunk * kv.value_bytes; }
__host__ __device__ inline int staged_bytes(const KvView& kv) {
  return chunk_value_bytes(kv) <= kStagedBytes ? chunk_value_bytes(kv) : 0;
}

struct Shared {
  float q[kMaxQueries][kMaxHeadDim];
  float p[kMaxQueries][kChunk];  // scores, then their exp
  float m[kMaxQueries];          // running softmax of each query
  float l[kMaxQueries];
  float old_factor[kMaxQueries];  // of what was summed before, and of this chunk
  float new_factor[kMaxQueries];
  uint32_t pages[kPagesPerChunk];
  alignas(16) unsigned is_last;
};

// The query vectors of a block.
struct Tile {
  uint32_t first_row;
  int n_queries, heads, first_head, kv_head;
  uint32_t first_position;  // of the first row

  __device__ uint32_t row(int query) const { return first_row + static_cast<uint32_t>(query / heads); }
  __device__ int head(int query) const { return first_head + query % heads; }
  __device__ uint32_t position(int query) const { return first_position + static_cast<uint32_t>(query / heads); }
};

__device__ Tile make_tile(const AttentionArgs& a) {
  const AttentionTile rows = a.batch.tiles[blockIdx.x];
  const int group = a.kv.n_heads / a.kv.n_kv_heads;
  const int tiles_of_group = (group + a.heads_per_tile - 1) / a.heads_per_tile;
  const int kv_head = static_cast<int>(blockIdx.y) / tiles_of_group;
  const int first = static_cast<int>(blockIdx.y) % tiles_of_group * a.heads_per_tile;
  const int heads = group - first < a.heads_per_tile ? group - first : a.heads_per_tile;
  return {rows.first_row, static_cast<int>(rows.n_rows) * heads, heads, kv_head * group + first,
          kv_head,        a.batch.positions[rows.first_row]};
}

__device__ void load_queries(const AttentionArgs& a, const Tile& tile, Shared& s) {
  for (int q = warp_id(); q < tile.n_queries; q += n_warps()) {
    const float* from = qkv_row(a, tile.row(q)) + tile.head(q) * a.kv.head_dim;
    for (int d = lane_id(); d < a.kv.head_dim; d += kWarp) s.q[q][d] = from[d];
  }
}

// s.p[query][position of the chunk] = score, for all positions that any query sees.
template <DType kKv>
__device__ void score(const AttentionArgs& a, const Tile& tile, uint32_t chunk, const Range& any, Shared& s) {
  constexpr int kStep = kThreads / kChunk, kPerThread = kMaxQueries / kStep;
  const int in_chunk = static_cast<int>(threadIdx.x) % kChunk, first = static_cast<int>(threadIdx.x) / kChunk;
  const uint32_t position = chunk + static_cast<uint32_t>(in_chunk);
  if (!any.has(position) || first >= tile.n_queries) return;
  const int in_page = in_chunk & ((1 << a.kv.page_shift) - 1);
  const std::byte* keys = head_in_page(a.kv, tile.kv_head, s.pages[in_chunk >> a.kv.page_shift]);
  float sum[kPerThread];
  const float* queries[kPerThread];
#pragma unroll
  for (int i = 0; i < kPerThread; ++i) queries[i] = s.q[first + i * kStep];
  multiply_key<kKv>(a.kv, keys, in_page, queries, sum);
#pragma unroll
  for (int i = 0; i < kPerThread; ++i)
    if (first + i * kStep < tile.n_queries) s.p[first + i * kStep][in_chunk] = __fmul_rn(sum[i], a.scale);
}

// The chunk's values that any query sees, [kChunk][value_bytes] as in the pages: load() asks for a thread's share of
// them, store() puts it into shared memory. A unit may hold ends of values that nobody sees.
struct StagedValues {
  uint4 units[kStagedUnits];
  bool has[kStagedUnits];

  __device__ void load(const AttentionArgs& a, const Tile& tile, uint32_t chunk, const Range& any, const Shared& s) {
#pragma unroll
    for (int i = 0; i < kStagedUnits; ++i) {
      const int byte = (i * kThreads + static_cast<int>(threadIdx.x)) * 16;
      const int first = byte / a.kv.value_bytes, last = (byte + 15) / a.kv.value_bytes;  // positions of the chunk
      has[i] = byte < staged_bytes(a.kv) && chunk + static_cast<uint32_t>(first) < any.end &&
               any.begin <= chunk + static_cast<uint32_t>(last);
      if (!has[i]) continue;
      const int page = first >> a.kv.page_shift;  // no unit has two pages
      const std::byte* values = head_in_page(a.kv, tile.kv_head, s.pages[page]) + a.kv.half_bytes;
      units[i] = *reinterpret_cast<const uint4*>(values + byte - (page << a.kv.page_shift) * a.kv.value_bytes);
    }
  }
  __device__ void store(uint4* shared) const {
#pragma unroll
    for (int i = 0; i < kStagedUnits; ++i)
      if (has[i]) shared[i * kThreads + static_cast<int>(threadIdx.x)] = units[i];
  }
};

// Which elements of the output a thread makes: d of queries first, first + step, ...
struct Elements {
  int d, first, step;
  bool any;
};
__device__ Elements elements(int head_dim) {
  const int step = kThreads / head_dim;
  const int t = static_cast<int>(threadIdx.x);
  return {t % head_dim, t / head_dim, step, t / head_dim < step};
}

// o[i] of a thread's elements: the chunk's weighted values, positions ascending. staged: the chunk's values, or null.
template <DType kKv>
__device__ void weigh(const AttentionArgs& a, const Tile& tile, uint32_t chunk, const Range& any, const Elements& mine,
                      const Shared& s, const std::byte* staged, float (&o)[kMaxQueries]) {
#pragma unroll
  for (int i = 0; i < kMaxQueries; ++i) o[i] = 0.0f;
  if (!mine.any) return;
  Range range[kMaxQueries];
#pragma unroll
  for (int i = 0; i < kMaxQueries; ++i) {
    const int q = mine.first + i * mine.step;
    range[i] = q < tile.n_queries ? seen(a, tile.position(q)) : Range{1, 0};
  }
  const int page_size = 1 << a.kv.page_shift;
  const uint32_t begin = any.begin > chunk ? any.begin : chunk;
  const uint32_t end = any.end < chunk + kChunk ? any.end : chunk + kChunk;
#pragma unroll 4
  for (uint32_t position = begin; position < end; ++position) {
    const int in_chunk = static_cast<int>(position - chunk), in_page = in_chunk & (page_size - 1);
    const std::byte* values =
        staged != nullptr ? staged
                          : head_in_page(a.kv, tile.kv_head, s.pages[in_chunk >> a.kv.page_shift]) + a.kv.half_bytes;
    const float v = value_at<kKv>(a.kv, values, staged != nullptr ? in_chunk : in_page, mine.d);
#pragma unroll
    for (int i = 0; i < kMaxQueries; ++i)
      if (range[i].has(position)) o[i] = __fmaf_rn(s.p[mine.first + i * mine.step][in_chunk], v, o[i]);
  }
}

__device__ float& output(const AttentionArgs& a, const Tile& tile, int query, int d) {
  return a.y[(size_t{tile.row(query)} * a.kv.n_heads + tile.head(query)) * a.kv.head_dim + d];
}

// The block that comes last: of each query, the chunks that its row sees.
__device__ void join_all(const AttentionArgs& a, const Tile& tile) {
  const Elements mine = elements(a.kv.head_dim);
  for (int q = mine.first; mine.any && q < tile.n_queries; q += mine.step)
    output(a, tile, q, mine.d) = join_chunks<kMaxQueries>(a, chunks_of(seen(a, tile.position(q))), q, mine.d);
}

template <DType kKv>
__global__ void __launch_bounds__(kThreads, 2) attention_kernel(const AttentionArgs a) {
  wait_for_inputs();
  Shared& s = *reinterpret_cast<Shared*>(shared_memory());
  auto* const staged = staged_bytes(a.kv) > 0 ? reinterpret_cast<uint4*>(shared_memory() + sizeof(Shared)) : nullptr;
  const Tile tile = make_tile(a);
  const Elements mine = elements(a.kv.head_dim);
  load_queries(a, tile, s);
  if (threadIdx.x < kMaxQueries) {
    s.m[threadIdx.x] = -INFINITY;
    s.l[threadIdx.x] = 0.0f;
  }
  const Range any = {seen(a, tile.position(0)).begin, tile.position(tile.n_queries - 1) + 1};
  const Range chunks = chunks_of(any);
  const uint32_t* table = a.batch.pages + a.batch.tables[tile.first_row];
  float total[kMaxQueries];
#pragma unroll
  for (int i = 0; i < kMaxQueries; ++i) total[i] = 0.0f;
  for (uint32_t c = chunks.begin + blockIdx.z; c < chunks.end; c += gridDim.z) {
    const uint32_t chunk = c * kChunk;
    const uint32_t page = (chunk >> a.kv.page_shift) + threadIdx.x;
    if (threadIdx.x < (static_cast<unsigned>(kChunk) >> a.kv.page_shift) && (page << a.kv.page_shift) < any.end)
      s.pages[threadIdx.x] = table[page];
    __syncthreads();
    StagedValues values;
    values.load(a, tile, chunk, any, s);
    score<kKv>(a, tile, chunk, any, s);
    values.store(staged);
    __syncthreads();
    for (int q = warp_id(); q < tile.n_queries; q += n_warps()) {
      const Range range = seen(a, tile.position(q));
      const bool sees = range.begin < chunk + kChunk && range.end > chunk;  // else nothing of this chunk is merged
      const ChunkSum sum = sees ? softmax(s.p[q], chunk, range) : ChunkSum{};
      if (lane_id() != 0) continue;
      if (gridDim.z > 1) {
        partial_of<kMaxQueries>(a, c, q)[a.kv.head_dim] = sum.m;
        partial_of<kMaxQueries>(a, c, q)[a.kv.head_dim + 1] = sum.l;
      } else if (sees) {
        merge(sum, s.m[q], s.l[q], s.old_factor[q], s.new_factor[q]);
      }
    }
    __syncthreads();
    float o[kMaxQueries];
    weigh<kKv>(a, tile, chunk, any, mine, s, reinterpret_cast<const std::byte*>(staged), o);
#pragma unroll
    for (int i = 0; i < kMaxQueries; ++i) {
      const int q = mine.first + i * mine.step;
      if (!mine.any || q >= tile.n_queries) continue;
      const Range range = seen(a, tile.position(q));
      if (gridDim.z > 1)
        partial_of<kMaxQueries>(a, c, q)[mine.d] = o[i];
      else if (range.begin < chunk + kChunk && range.end > chunk)
        total[i] = __fmaf_rn(total[i], s.old_factor[q], __fmul_rn(o[i], s.new_factor[q]));
    }
    __syncthreads();
  }
  if (gridDim.z > 1) {
    if (comes_last(a.arrivals[blockIdx.x * gridDim.y + blockIdx.y], gridDim.z, s.is_last)) join_all(a, tile);
    return;
  }
#pragma unroll
  for (int i = 0; i < kMaxQueries; ++i) {
    const int q = mine.first + i * mine.step;
    if (mine.any && q < tile.n_queries) output(a, tile, q, mine.d) = __fdiv_rn(total[i], s.l[q]);
  }
}

}  // namespace

void attention(const KernelStream& stream, const AttentionArgs& a) {
  const int tiles_of_group = divide_up(a.kv.n_heads / a.kv.n_kv_heads, a.heads_per_tile);
  const dim3 grid(static_cast<unsigned>(a.n_tiles), static_cast<unsigned>(a.kv.n_kv_heads * tiles_of_group),
                  static_cast<unsigned>(a.n_splits));
  launch(stream, {grid, kThreads, sizeof(Shared) + static_cast<size_t>(staged_bytes(a.kv))},
         a.kv.dtype == DType::kQ8_0  ? attention_kernel<DType::kQ8_0>
         : a.kv.dtype == DType::kF16 ? attention_kernel<DType::kF16>
                                     : attention_kernel<DType::kF32>,
         a);
}

}  // namespace llorch::cuda
