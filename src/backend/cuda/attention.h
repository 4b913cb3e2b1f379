// What both attention kernels share: which positions a row sees, softmax of a chunk, joining chunks. For kernels.
#pragma once

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

__device__ inline const float* qkv_row(const AttentionArgs& a, uint32_t row) {
  return a.qkv + size_t{row} * static_cast<size_t>((a.kv.n_heads + 2 * a.kv.n_kv_heads) * a.kv.head_dim);
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

// Of the blocks that share a tile, n in all: whether this one is the last to come here. All threads ask; what the
// others have written before is visible.
__device__ inline bool comes_last(unsigned& arrivals, unsigned n, unsigned& shared) {
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) {
    shared = atomicAdd(&arrivals, 1u) + 1 == n ? 1u : 0u;
    if (shared != 0) arrivals = 0;  // for the next launch
  }
  __syncthreads();
  __threadfence();
  return shared != 0;
}

}  // namespace llorch::cuda
