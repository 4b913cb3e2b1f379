// What the two kernels of Linear share. For .cu files.
//
// A block makes a group of 32 outputs of up to kRows rows; a lane is an output, a warp takes a segment of 256 of K at a
// time and leaves its sum in shared memory; at the end the sums are added left to right. Weights go through a ring in
// shared memory that is the warp's own: a lane copies what it will read itself. The copies begin before the kernel
// waits for its inputs, so that the device's memory is at work while the kernel before ends.
#pragma once

#include <type_traits>

#include "backend/cuda/async_copy.h"
#include "backend/cuda/codes.h"
#include "backend/cuda/launch.h"
#include "backend/cuda/prepare.h"

namespace llorch::cuda {

inline constexpr int kMaxLinearWarps = 24;
inline constexpr int kLinearThreads = kMaxLinearWarps * kWarp;
// Of one block: two have room beside each other on a multiprocessor of 227 KB, or, at most, one.
inline constexpr size_t kHalfShared = 112 << 10, kAllShared = 208 << 10;

// Where things lie in a block's shared memory, as bytes from its beginning.
template <int kRows>
struct LinearShared {
  uint32_t inverse, rows, norm, warps, bytes;  // sums [segments][kRows][32] come first

  // A norm's rows, if the block makes it itself, are at most kRows.
  __host__ __device__ LinearShared(const LinearArgs& a, int n_warps, uint32_t bytes_per_warp) {
    const bool norms = a.x.prepare == Prepare::kRmsNorm && a.packed.q == nullptr;
    const auto row_bytes = norms ? static_cast<uint32_t>((a.x.cols + 3) / 4 * 16) : 0;
    inverse = static_cast<uint32_t>(a.parts[0].w.segments) * kRows * kGroup * sizeof(float);
    rows = inverse + kMaxTileRows * sizeof(float);
    norm = rows + kRows * row_bytes;
    warps = norm + row_bytes;
    bytes = warps + static_cast<uint32_t>(n_warps) * bytes_per_warp;
  }
};

template <typename T>
__device__ T* shared_at(uint32_t byte) {
  return reinterpret_cast<T*>(shared_memory() + byte);
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

// The input of a tile's rows, where the block makes it itself.
template <int kRows>
struct TileInput {
  const LinearArgs& a;
  const Place& place;
  const LinearShared<kRows>& shared;

  __device__ bool norms() const { return a.x.prepare == Prepare::kRmsNorm && a.packed.q == nullptr; }

  // Before wait_for_inputs(): one group of copies.
  __device__ void ask_for_norm() const {
    if (norms())
      for (int k = static_cast<int>(threadIdx.x); k < a.x.cols; k += static_cast<int>(blockDim.x))
        copy_4(shared_at<float>(shared.norm) + k, a.x.norm_weight + k);
    commit_copies();
  }

  // After it, by all threads; norm's copies are there.
  __device__ void begin() const {
    if (!norms()) return;
    const int stride = (a.x.cols + 3) / 4 * 4;
    auto* rows = shared_at<float>(shared.rows);
    for (int r = 0; r < kRows; ++r) {
      const float* x = a.x.x + size_t(clamped_row(a, place.first_row + r)) * a.x.stride;
#pragma unroll 8
      for (int k = static_cast<int>(threadIdx.x); k < a.x.cols; k += static_cast<int>(blockDim.x))
        rows[r * stride + k] = x[k];
    }
    __syncthreads();
    for (int r = warp_id(); r < kRows; r += n_warps()) {
      const float inverse = inverse_norm(rows + r * stride, a.x.cols, a.x.eps);
      if (lane_id() == 0) shared_at<float>(shared.inverse)[r] = inverse;
    }
    __syncthreads();
  }

  // A warp's values of row r from k0 on, n of them; 0 behind.
  __device__ void get(int r, int k0, int n, LaneValues& y) const {
    if (!norms()) return prepare(a.x, clamped_row(a, place.first_row + r), k0, n, 0.0f, y);
    const int stride = (a.x.cols + 3) / 4 * 4;
    const float inverse = shared_at<float>(shared.inverse)[r];
#pragma unroll
    for (int i = 0; i < kOfLane; ++i) {
      const int k = i * kWarp + lane_id();
      y[i] = k < n ? normalized(shared_at<float>(shared.rows)[r * stride + k0 + k], inverse,
                                shared_at<float>(shared.norm)[k0 + k])
                   : 0.0f;
    }
  }
};

// A warp leaves the sums of a segment.
template <int kRows>
__device__ void leave(int segment, const float (&acc)[kRows]) {
#pragma unroll
  for (int r = 0; r < kRows; ++r) shared_at<float>(0)[(segment * kRows + r) * kGroup + lane_id()] = acc[r];
}

// What a lane's output of row r of the tile is added to; asked for early, and used in finish().
__device__ inline float residual(const LinearArgs& a, const Place& place, int r) {
  const int row = place.first_row + r, column = place.group * kGroup + lane_id();
  if (!a.accumulate || row >= a.n_rows || column >= place.part.w.rows) return 0.0f;
  return a.y[size_t(row) * a.y_width + place.part.column + column];
}

// When all have left theirs: the total, bias, then residual, then out. One lane, one output. first: residual() of the
// warp's first row.
template <int kRows>
__device__ void finish(const LinearArgs& a, const Place& place, float first) {
  __syncthreads();
  const int column = place.group * kGroup + lane_id();
  for (int r = warp_id(); r < kRows; r += n_warps()) {
    const int row = place.first_row + r;
    if (row >= a.n_rows || column >= place.part.w.rows) continue;
    float& y = a.y[size_t(row) * a.y_width + place.part.column + column];
    const float before = r == warp_id() ? first : residual(a, place, r);
    float total = 0.0f;
#pragma unroll 8
    for (int s = 0; s < place.part.w.segments; ++s)
      total = __fadd_rn(total, shared_at<float>(0)[(s * kRows + r) * kGroup + lane_id()]);
    if (place.part.bias != nullptr) total = __fadd_rn(total, place.part.bias[column]);
    y = a.accumulate ? __fadd_rn(before, total) : total;
  }
}

// A launch of `warps` warps a block, if so many have room.
template <int kRows>
Shape linear_shape(const LinearArgs& a, int warps, uint32_t bytes_per_warp) {
  return {dim3(static_cast<unsigned>(divide_up(a.n_rows, kRows)), static_cast<unsigned>(a.n_groups)),
          dim3(static_cast<unsigned>(warps * kWarp)), LinearShared<kRows>(a, warps, bytes_per_warp).bytes};
}

// Starts the kernel for as many rows at once as there are and have room: start(rows) gives false where they have not.
template <typename Start>
void choose_rows(const LinearArgs& a, Start start) {
  if (a.n_rows > 4 && start(std::integral_constant<int, kMaxTileRows>())) return;
  if (a.n_rows > 2 && start(std::integral_constant<int, 4>())) return;
  if (a.n_rows > 1 && start(std::integral_constant<int, 2>())) return;
  if (!start(std::integral_constant<int, 1>())) fail_too_wide(a.parts[0].w.cols);
}

// The most warps that fit into `limit` bytes, so few that all have as many segments as the busiest one; 0: none fits.
template <int kRows>
int count_warps(const LinearArgs& a, int most, uint32_t bytes_per_warp, size_t limit) {
  const size_t fixed = LinearShared<kRows>(a, 0, 0).bytes;
  if (fixed + bytes_per_warp > limit) return 0;
  const int segments = a.parts[0].w.segments;
  const auto room = static_cast<int>((limit - fixed) / bytes_per_warp);
  const int warps = segments < most ? (segments < room ? segments : room) : (most < room ? most : room);
  return divide_up(segments, divide_up(segments, warps));
}

}  // namespace llorch::cuda
