// The matrix roof of Hopper: warpgroups that multiply from shared memory, with products always under way.
#include "backend/cuda/launch.h"
#include "backend/cuda/roof_matrix.h"
#include "backend/cuda/wgmma.h"

namespace llorch::cuda {
namespace {

constexpr int kUnitBytes = 16;

__device__ CoreMatrices rows_from(int row, int unit) {
  return {shared_memory() + (unit * kRoofRows + row) * kUnitBytes, 8 * kUnitBytes, kRoofRows * kUnitBytes};
}

template <DType kType, int kColumns>
__global__ void __launch_bounds__(kRoofThreads, 1) multiply_kernel(const uint4* operands, int iterations, float* out) {
  constexpr int kEach = 2 * kRoofSums / kColumns;  // products of a warpgroup, 64 rows of x each
  for (int i = static_cast<int>(threadIdx.x); i < kRoofUnits * kRoofRows; i += static_cast<int>(blockDim.x))
    reinterpret_cast<uint4*>(shared_memory())[i] = operands[i];
  publish_to_products();
  __syncthreads();
  const int first_row = static_cast<int>(threadIdx.x) / kWarpgroup * kEach * 64;
  float sums[kEach][kColumns / 2];
  for (int i = 0; i < iterations; ++i) {
    begin_products();
#pragma unroll
    for (int unit = 0; unit < kRoofUnits; unit += 2)
#pragma unroll
      for (int j = 0; j < kEach; ++j)
        multiply<kType, kColumns>(sums[j], rows_from(first_row + j * 64, unit), rows_from(kRoofRows - kColumns, unit),
                                  unit > 0 || i % kRoofRestart != 0);
    commit_products();
    wait_for_products<1>();
  }
  wait_for_products<0>();
  float total = 0.0f;
#pragma unroll
  for (int j = 0; j < kEach; ++j) {
    take_sums(sums[j]);
#pragma unroll
    for (const float sum : sums[j]) total += sum;
  }
  out[blockIdx.x * blockDim.x + threadIdx.x] = total;
}

template <DType kType>
auto kernel_of(int columns) {
  return columns == 256 ? multiply_kernel<kType, 256> : multiply_kernel<kType, 128>;
}

}  // namespace

void multiply_by_warpgroups(const KernelStream& stream, const WarpgroupWay& way, const uint4* operands, int iterations,
                            float* out) {
  const auto kernel =
      way.dtype == DType::kBF16 ? kernel_of<DType::kBF16>(way.columns) : kernel_of<DType::kF16>(way.columns);
  launch(stream,
         {dim3(static_cast<unsigned>(stream.n_multiprocessors)),
          dim3(static_cast<unsigned>(way.n_warpgroups * kWarpgroup)), size_t{kRoofUnits} * kRoofRows * kUnitBytes},
         kernel, operands, iterations, out);
}

}  // namespace llorch::cuda
