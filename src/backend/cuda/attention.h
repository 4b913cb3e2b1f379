// What the attention kernels share: which positions a row sees, scores and softmax of a chunk, joining chunks. For
// kernels.
#pragma once

#include "backend/cuda/arrivals.h"
#include "backend/cuda/device_code.h"
#include "backend/cuda/kernels.h"
#include "backend/cuda/kv_pages.h"
#include "backend/cuda/launch.h"
#include "base/exp.h"

namespace llorch::cuda {

// Positions that a query sees: [begin, end).
struct Range {
  uint32_t begin, end;
  __device__ bool has(uint32_t position) const { return begin <= position && position < end; }
};
__device__ inline Range seen(const AttentionArgs& a, uint32_t position) {
  return {a.window != 0 && position + 1 > a.window ? position + 1 - a.window : 0, position + 1};
}

// Chunks that have some of these positions: [begin, end).
__device__ inline Range chunks_of(const Range& positions) {
  return {positions.begin / kChunk, (positions.end + kChunk - 1) / kChunk};
}

__device__ inline const float* qkv_row(const AttentionArgs& a, uint32_t row) {
  return a.qkv + size_t{row} * static_cast<size_t>((a.kv.n_heads + 2 * a.kv.n_kv_heads) * a.kv.head_dim);
}

// sum[i] = queries[i] times the key at a position of its page, elements ascending. queries[i]: [head_dim], at a
// multiple of 16 bytes.
template <DType kKv, int kN>
__device__ void multiply_key(const KvView& kv, const std::byte* keys, int in_page, const float* const (&queries)[kN],
                             float (&sum)[kN]) {
  constexpr int kUnit = kKeyUnit<kKv>;
  const int page_size = 1 << kv.page_shift;
  float d = 0.0f;
#pragma unroll
  for (int i = 0; i < kN; ++i) sum[i] = 0.0f;
#pragma unroll 8
  for (int unit = 0; unit < kv.head_dim / kUnit; ++unit) {
    float k[kUnit];
    if constexpr (kKv == DType::kQ8_0)
      if (unit % (kKvBlockSize / kUnit) == 0)
        d = widen_f16(*reinterpret_cast<const uint16_t*>(keys + q8_key_scale_at(kv, in_page, unit * kUnit)));
    load_key<kKv>(keys, unit * page_size + in_page, d, k);
#pragma unroll
    for (int i = 0; i < kN; ++i) {
      const float* elements = queries[i] + unit * kUnit;
#pragma unroll
      for (int j = 0; j < kUnit; j += 4) {
        const float4 q = *reinterpret_cast<const float4*>(elements + j);
        sum[i] = __fmaf_rn(q.x, k[j], sum[i]);
        sum[i] = __fmaf_rn(q.y, k[j + 1], sum[i]);
        sum[i] = __fmaf_rn(q.z, k[j + 2], sum[i]);
        sum[i] = __fmaf_rn(q.w, k[j + 3], sum[i]);
      }
    }
  }
}

// Of one query, by a warp: scores become their exp; gives the chunk's maximum and sum.
struct ChunkSum {
  float m, l;
};
__device__ inline ChunkSum softmax(float (&p)[kChunk], uint32_t chunk, const Range& range) {
  const int lane = lane_id();
  const bool has0 = range.has(chunk + static_cast<uint32_t>(lane));
  const bool has1 = range.has(chunk + static_cast<uint32_t>(lane + kWarp));
  const float s0 = has0 ? p[lane] : -INFINITY, s1 = has1 ? p[lane + kWarp] : -INFINITY;
  float m = -INFINITY;
  m = s0 > m ? s0 : m;
  m = s1 > m ? s1 : m;
  m = float_max(m);
  const float p0 = has0 ? exp_f32(__fadd_rn(s0, -m)) : 0.0f, p1 = has1 ? exp_f32(__fadd_rn(s1, -m)) : 0.0f;
  if (has0) p[lane] = p0;
  if (has1) p[lane + kWarp] = p1;
  return {m, tree_sum(__fadd_rn(p0, p1))};
}

// Joins a chunk to the running sums of a query, but for the output: gives the factors that its elements take.
__device__ inline void merge(const ChunkSum& chunk, float& m, float& l, float& old_factor, float& new_factor) {
  const float largest = chunk.m > m ? chunk.m : m;
  old_factor = exp_f32(__fadd_rn(m, -largest));
  new_factor = exp_f32(__fadd_rn(chunk.m, -largest));
  l = __fmaf_rn(l, old_factor, __fmul_rn(chunk.l, new_factor));
  m = largest;
}

// Sums of one query's chunk in device memory: the output's elements, m, l. kQueries: of a tile.
template <int kQueries>
__device__ float* partial_of(const AttentionArgs& a, uint32_t chunk, int query) {
  const size_t tile = size_t{blockIdx.x} * gridDim.y + blockIdx.y;
  return a.partial + ((tile * static_cast<size_t>(a.max_chunks) + chunk) * kQueries + static_cast<size_t>(query)) *
                         static_cast<size_t>(a.kv.head_dim + 2);
}

// Element d of a query's output, of chunks whose sums all blocks have left, left to right.
template <int kQueries>
__device__ float join_chunks(const AttentionArgs& a, const Range& chunks, int query, int d) {
  float m = -INFINITY, l = 0.0f, o = 0.0f;
#pragma unroll 8
  for (uint32_t c = chunks.begin; c < chunks.end; ++c) {
    const float* part = partial_of<kQueries>(a, c, query);
    const float o_chunk = __ldcg(part + d);
    const ChunkSum sum = {__ldcg(part + a.kv.head_dim), __ldcg(part + a.kv.head_dim + 1)};
    float old_factor, new_factor;
    merge(sum, m, l, old_factor, new_factor);
    o = __fmaf_rn(o, old_factor, __fmul_rn(o_chunk, new_factor));
  }
  return __fdiv_rn(o, l);
}

}  // namespace llorch::cuda
