// The matrix roof of tensor cores that a warp multiplies on: operands from shared memory into registers, every time.
#include "backend/cuda/launch.h"
#include "backend/cuda/mma.h"
#include "backend/cuda/roof_matrix.h"

namespace llorch::cuda {
namespace {

constexpr int kUnitBytes = 16;
constexpr int kSide = 64, kFirstOfY = 128;  // of a warp's sums; y's first row
constexpr int kTiles = kSide / 16;          // of 16 rows, of x and of y

// The four matrices of 8 rows and 8 of K from this row and unit on, two by two. rows_first: which neighbour is second.
__device__ void load_tile(unsigned (&out)[4], int row, int unit, bool rows_first) {
  const int m = lane_id() / 8, rows_on = rows_first ? m % 2 : m / 2, units_on = rows_first ? m / 2 : m % 2;
  load_matrices<false>(
      out, shared_memory() + ((unit + units_on) * kRoofRows + row + rows_on * 8 + lane_id() % 8) * kUnitBytes);
}

using Sums = float[kTiles][2 * kTiles][4];

__device__ void clear(Sums& sums) {
#pragma unroll
  for (auto& row : sums)
#pragma unroll
    for (auto& tile : row)
#pragma unroll
      for (float& sum : tile) sum = 0.0f;
}

__global__ void __launch_bounds__(kRoofThreads, 1) multiply_kernel(const uint4* operands, int iterations, float* out) {
  for (int i = static_cast<int>(threadIdx.x); i < kRoofUnits * kRoofRows; i += kRoofThreads)
    reinterpret_cast<uint4*>(shared_memory())[i] = operands[i];
  __syncthreads();
  const int x_row = warp_id() / 4 * kSide, y_row = kFirstOfY + warp_id() % 4 * kSide;
  Sums sums;
  for (int i = 0; i < iterations; ++i) {
    if (i % kRoofRestart == 0) clear(sums);
#pragma unroll
    for (int unit = 0; unit < kRoofUnits; unit += 2) {
      unsigned x[kTiles][4], y[kTiles][4];
#pragma unroll
      for (int t = 0; t < kTiles; ++t) {
        load_tile(x[t], x_row + t * 16, unit, true);
        load_tile(y[t], y_row + t * 16, unit, false);
      }
#pragma unroll
      for (int t = 0; t < kTiles; ++t)
#pragma unroll
        for (int n = 0; n < 2 * kTiles; ++n)
          multiply_add(sums[t][n], x[t], y[n / 2][n % 2 * 2], y[n / 2][n % 2 * 2 + 1]);
    }
  }
  float total = 0.0f;
#pragma unroll
  for (const auto& row : sums)
#pragma unroll
    for (const auto& tile : row)
#pragma unroll
      for (const float sum : tile) total += sum;
  out[blockIdx.x * kRoofThreads + threadIdx.x] = total;
}

}  // namespace

void multiply_by_warps(const KernelStream& stream, const uint4* operands, int iterations, float* out) {
  launch(stream,
         {dim3(static_cast<unsigned>(stream.n_multiprocessors)), kRoofThreads,
          size_t{kRoofUnits} * kRoofRows * kUnitBytes},
         multiply_kernel, operands, iterations, out);
}

}  // namespace llorch::cuda
