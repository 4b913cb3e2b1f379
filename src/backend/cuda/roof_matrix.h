// Products of 16-bit matrices from shared memory, for the matrix roof: what a block multiplies, and the functions that
// put it into a stream. A block for each multiprocessor; nothing is read from memory once it has begun to multiply.
//
// Operands [kRoofUnits][kRoofRows][8 elements]: rows of x, and behind them those of y, 64 of K each. Iteration i adds
// all of x y' to the sums; every kRoofRestart iterations these begin anew, as those of a product of 4,096 of K do: sums
// that only grow would lose the products' lower bits, and switching fewer of them costs less power than work does.
#pragma once

#include "backend/cuda/kernels.h"

namespace llorch::cuda {

inline constexpr int kRoofUnits = 8, kRoofRows = 384, kRoofRestart = 64;
inline constexpr int kRoofThreads = 256;
inline constexpr int kRoofSums = 128;  // of a thread: 64 rows by 256 of four warps, or as many in another shape

// Operations of a thread in one iteration, a multiply-add as two.
inline constexpr double kRoofFlops = 2.0 * kRoofSums * kRoofUnits * 8;

// wgmma, compute capability 9.0 alone. columns 256: a warpgroup multiplies 64 rows of x with 256 of y; 128: twice 64
// rows with 128, as linear_tensor.cu does.
struct WarpgroupWay {
  DType dtype = DType::kF16;  // or bf16
  int columns = 256;
  int n_warpgroups = 2;  // of a block, or 1
};

// Each thread's own sums, added up, go to out [n_multiprocessors][threads].
void multiply_by_warpgroups(const KernelStream& stream, const WarpgroupWay& way, const uint4* operands, int iterations,
                            float* out);

// mma.sync of f16, compute capability 8.0 and newer. Eight warps, each 64 rows of x (of 128) with 64 of y (of 256).
void multiply_by_warps(const KernelStream& stream, const uint4* operands, int iterations, float* out);

}  // namespace llorch::cuda
