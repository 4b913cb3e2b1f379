// Attention of many rows on tensor cores, for keys and values in f16. A block has up to 128 query vectors that share a
// KV head: heads of its group, and neighbouring rows of one sequence; a warpgroup has 64 of them. Keys
// and values come in chunks of 64 positions, as core matrices; softmax is kept running in float32, weights are rounded
// to f16. Warpgroups take turns by themselves: while one makes weights, another one multiplies.
//
// A query is the sum of two f16, its rounding and the rounding of what is left, 22 bits in all: an error of a score is
// one of its weight's exponent, and with scores of 30 the 11 bits of one f16 were 2.7 times beyond the bound of
// attention.
//
// What a query does not see has weight 0. Positions behind the sequence's end are zero in shared memory, whatever the
// pages hold; a NaN value at a later position of the same tile does reach the queries before it.
#include "backend/cuda/attention_tensor.h"
#include "backend/cuda/softmax_tensor.h"

namespace llorch::cuda {
namespace {

// Sums of a thread, as products leave them: of n columns, and four for each eight of them, two of either query.
template <int kColumns>
using Sums = float[kColumns / 2];

// Asks for s [64, 64] = the warpgroup's queries times the chunk's keys.
template <int kDim>
__device__ void score(const WarpgroupQueries<kDim>& queries, const Chunk<kDim>& chunk, Sums<kChunk>& s) {
#pragma unroll
  for (int k = 0; k < kDim / 16; ++k)
#pragma unroll
    for (int part = 0; part < 2; ++part)
      multiply<DType::kF16, kChunk>(s, {queries[part][2 * k], 8 * kUnitBytes, kQueriesOfWarpgroup * kUnitBytes},
                                    {chunk.keys[2 * k], 8 * kUnitBytes, kKeyUnitBytes}, k > 0 || part > 0);
}

// Asks for o [64, kOutputs] += weights times the chunk's values.
using Weights = unsigned[kChunk / 16][4];
template <int kDim>
__device__ void add_values(const Weights& weights, const Chunk<kDim>& chunk, Sums<kOutputs<kDim>>& o) {
#pragma unroll
  for (int k = 0; k < kChunk / 16; ++k)
    multiply<kOutputs<kDim>, true>(o, weights[k],
                                   {chunk.values[0] + k * 16 * kUnitBytes, kValueUnitBytes, 8 * kUnitBytes}, true);
}

// What a thread knows of its queries.
template <int kDim>
struct Own {
  float scale[kOwn];  // of scores, to powers of two
  Range all;          // what all queries of the block see
  Softmax softmax;
  Sums<kOutputs<kDim>> o = {};

  // Scores of the chunk at position `first` become its weights; sums so far are scaled to fit.
  __device__ void weigh(const AttentionArgs& a, const AttentionShared<kDim>& shared, const int (&query)[kOwn],
                        uint32_t first, Sums<kChunk>& s, Weights& weights) {
    if (first + kChunk > all.end || first < all.begin) {
#pragma unroll
      for (int own = 0; own < kOwn; ++own) {
        const uint32_t end = shared.ends[query[own]];
        const Range range = end == 0 ? Range{0, 0} : seen(a, end - 1);
#pragma unroll
        for (int n = 0; n < kChunk / 8; ++n)
#pragma unroll
          for (int i = 0; i < 2; ++i)
            if (!range.has(first + static_cast<uint32_t>(n * 8 + lane_id() % 4 * 2 + i)))
              s[4 * n + 2 * own + i] = -INFINITY;
      }
    }
    float factor[kOwn];
    cuda::weigh(reinterpret_cast<float(&)[kChunk / 8][4]>(s), scale, softmax, factor);
    if (factor[0] != 1.0f || factor[1] != 1.0f) {
#pragma unroll
      for (int i = 0; i < kOutputs<kDim> / 2; ++i) o[i] *= factor[i % 4 / 2];
    }
#pragma unroll
    for (int i = 0; i < kChunk / 4; ++i) weights[i / 4][i % 4] = round_to_halves<DType::kF16>(s[2 * i], s[2 * i + 1]);
  }

  __device__ void store(const AttentionArgs& a, const int (&query)[kOwn]) const {
    const Tile tile = make_tile(a);
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
};

template <int kDim>
__global__ void __launch_bounds__(kAttentionThreads, kDim <= 64 ? 2 : 1)
    attention_tensor_kernel(const __grid_constant__ AttentionArgs a) {
  auto& shared = *reinterpret_cast<AttentionShared<kDim>*>(shared_memory());
  ChunkRing<kDim>::init(shared);
  wait_for_inputs();
  const int first_query = warp_id() * 16 + lane_id() / 4, query[kOwn] = {first_query, first_query + 8};
  WarpgroupQueries<kDim>& queries = shared.queries[warp_id() * kWarp / kWarpgroup];
  const Tile tile = make_tile(a);
  const uint32_t end = tile.first_position + static_cast<uint32_t>(tile.n_rows);
  const uint32_t first_chunk = seen(a, tile.first_position).begin / kChunk;
  const uint32_t n_chunks = (end + kChunk - 1) / kChunk - first_chunk;
  ChunkRing<kDim> ring(a, tile, shared, first_chunk, end);
  ring.ask(0);
  ring.ask(1);
  ring.ask(2);
  Own<kDim> own;
  own.all = {seen(a, end - 1).begin, tile.first_position + 1};
  load_queries<kDim>(a, tile, query, queries, own.scale);
  for (float& scale : own.scale) scale *= a.scale * kLog2e;
  if (lane_id() % 4 == 0)
    for (const int q : query) shared.ends[q] = tile.has(q) ? tile.position(q) + 1 : 0;
  wait_for_copies<1>();
  __syncthreads();  // barriers are made, queries are there
  ring.publish(0);
  ring.publish(1);
  Sums<kChunk> s;
  Weights weights;
  const Chunk<kDim>* chunk = &ring.get(0);
  begin_products();
  score<kDim>(queries, *chunk, s);
  commit_products();
  wait_for_products<0>();
  take_sums(s);
  // A turn: values of a chunk and scores of the next one are multiplied together. Chunks are asked for three turns
  // ahead and published two ahead, so that one warpgroup may be a turn before the other.
  uint32_t i = 0;
  for (; i + 1 < n_chunks; ++i) {
    own.weigh(a, shared, query, (first_chunk + i) * kChunk, s, weights);
    wait_for_copies<0>();
    ring.publish(i + 2);
    ring.ask(i + 3);
    const Chunk<kDim>& next = ring.get(i + 1);
    begin_products();
    add_values<kDim>(weights, *chunk, own.o);
    score<kDim>(queries, next, s);
    commit_products();
    wait_for_products<0>();
    take_sums(s);
    take_sums(own.o);
    ring.release(i);
    chunk = &next;
  }
  own.weigh(a, shared, query, (first_chunk + i) * kChunk, s, weights);
  begin_products();
  add_values<kDim>(weights, *chunk, own.o);
  commit_products();
  wait_for_products<0>();
  take_sums(own.o);
  own.store(a, query);
}

template <int kDim>
void start(const KernelStream& stream, const AttentionArgs& a) {
  const int tiles_of_group = divide_up(a.kv.n_heads / a.kv.n_kv_heads, a.heads_per_tile);
  launch(stream,
         {dim3(static_cast<unsigned>(a.kv.n_kv_heads * tiles_of_group), static_cast<unsigned>(a.n_tiles)),
          kAttentionThreads, sizeof(AttentionShared<kDim>)},
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
