// What the two kernels of Linear share. For .cu files.
//
// A block makes a group of 32 outputs of up to kRows rows; a lane is an output, a warp takes a segment of 256 of K at
// a time. Segment sums meet in shared memory and are added left to right. Where the groups alone cannot fill the
// device, several blocks share a group: each warp then takes one segment, sums meet in device memory, and the block
// that comes last adds them.
#pragma once

#include "backend/cuda/codes.h"
#include "backend/cuda/launch.h"
#include "backend/cuda/prepare.h"

namespace llorch::cuda {

inline constexpr int kLinearThreads = 256;

// Shared memory of a block begins with these; the kernel's own comes behind them.
template <int kRows>
struct LinearShared {
  float inverse[kMaxTileRows];  // of normalized rows
  unsigned is_last;             // of the blocks that share a group
  unsigned pad[7];
  float totals[kRows][kGroup];                        // of the segments so far
  float sums[kLinearThreads / kWarp][kRows][kGroup];  // of this round's segments
};

// Weights are read once by few rows, and again and again, from L2, by many.
template <int kRows, typename T>
__device__ T load_unit(const T* unit) {
  if constexpr (kRows < kMaxTileRows)
    return __ldcs(unit);
  else
    return __ldg(unit);
}

// Where a block works.
struct Place {
  LinearPart part;
  int group;      // inside the part
  int first_row;  // of the tile
};

template <int kRows>
__device__ Place find_place(const LinearArgs& a) {
  const int group = static_cast<int>(blockIdx.y);
  int i = 0;
  while (i + 1 < a.n_parts && group >= a.parts[i + 1].first_group) ++i;
  return {a.parts[i], group - a.parts[i].first_group, static_cast<int>(blockIdx.x) * kRows};
}

// The tile's row, or its last one again.
__device__ inline int clamped_row(const LinearArgs& a, int row) { return row < a.n_rows ? row : a.n_rows - 1; }

// 1 / rms of the tile's rows, where the block prepares them itself. All threads take part.
template <int kRows>
__device__ void find_inverses(const LinearArgs& a, const Place& place, LinearShared<kRows>& shared) {
  if (a.x.prepare != Prepare::kRmsNorm) return;
  for (int r = warp_id(); r < kRows; r += n_warps()) {
    const float inverse = inverse_norm(a.x, clamped_row(a, place.first_row + r));
    if (lane_id() == 0) shared.inverse[r] = inverse;
  }
  __syncthreads();
}

// Bias, then residual, then out. One lane, one output.
__device__ inline void finish(const LinearArgs& a, const Place& place, int row, float total) {
  const int column = place.group * kGroup + lane_id();
  if (row >= a.n_rows || column >= place.part.w.rows) return;
  if (place.part.bias != nullptr) total = __fadd_rn(total, place.part.bias[column]);
  float& y = a.y[size_t(row) * a.y_width + place.part.column + column];
  y = a.accumulate ? __fadd_rn(y, total) : total;
}

// A block that has its group for itself: adds a round's segments to the totals; first: of the round.
template <int kRows>
__device__ void add_round(const float (&acc)[kRows], int first, int segments, LinearShared<kRows>& shared) {
#pragma unroll
  for (int r = 0; r < kRows; ++r) shared.sums[warp_id()][r][lane_id()] = acc[r];
  __syncthreads();
  const int n = segments - first < n_warps() ? segments - first : n_warps();
  for (int r = warp_id(); r < kRows; r += n_warps()) {
    float total = first == 0 ? 0.0f : shared.totals[r][lane_id()];
    for (int s = 0; s < n; ++s) total = __fadd_rn(total, shared.sums[s][r][lane_id()]);
    shared.totals[r][lane_id()] = total;
  }
  __syncthreads();
}

// A block that shares its group: leaves its segments' sums; the last one adds them all and finishes.
template <int kRows>
__device__ void add_splits(const LinearArgs& a, const Place& place, const float (&acc)[kRows], int segment,
                           LinearShared<kRows>& shared) {
  const int segments = place.part.w.segments, group = static_cast<int>(blockIdx.y);
  float* sums = a.partial + size_t(group) * segments * kMaxTileRows * kGroup;
  if (segment < segments) {
#pragma unroll
    for (int r = 0; r < kRows; ++r) sums[(segment * kRows + r) * kGroup + lane_id()] = acc[r];
  }
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) {
    const unsigned before = atomicAdd(&a.arrivals[group], 1u);
    shared.is_last = before + 1 == static_cast<unsigned>(a.n_splits) ? 1u : 0u;
  }
  __syncthreads();
  if (shared.is_last == 0) return;
  __threadfence();
  for (int r = warp_id(); r < kRows; r += n_warps()) {
    float total = 0.0f;
#pragma unroll 8
    for (int s = 0; s < segments; ++s) total = __fadd_rn(total, __ldcg(&sums[(s * kRows + r) * kGroup + lane_id()]));
    finish(a, place, place.first_row + r, total);
  }
  if (threadIdx.x == 0) a.arrivals[group] = 0;  // for the next launch
}

// Rows of a tile, and how a launch is cut, of a kernel that is compiled for kRows.
template <int kRows>
Shape cut_linear(LinearArgs& a, int n_multiprocessors, int max_warps, size_t bytes_per_warp) {
  const int tiles = divide_up(a.n_rows, kRows), segments = a.parts[0].w.segments;
  const int wanted = kBlocksPerMultiprocessor * n_multiprocessors;
  int warps = segments < max_warps ? segments : max_warps;
  a.n_splits = 1;
  if (tiles == 1 && a.n_groups < wanted && segments > 1) {
    const int even = divide_up(int64_t{a.n_groups} * segments, wanted);
    warps = even < 2 ? 2 : even < max_warps ? even : max_warps;
    a.n_splits = divide_up(segments, warps);
  }
  return {dim3(static_cast<unsigned>(tiles), static_cast<unsigned>(a.n_groups), static_cast<unsigned>(a.n_splits)),
          dim3(static_cast<unsigned>(warps * kWarp)), sizeof(LinearShared<kRows>) + warps * bytes_per_warp};
}

}  // namespace llorch::cuda
