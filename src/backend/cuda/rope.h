// Rotation of a pair. For kernels.
#pragma once

#include "backend/cuda/device_code.h"
#include "backend/cuda/kernels.h"

namespace llorch::cuda {

// Elements of a head that form pair i.
struct Pair {
  int first, second;
};
__device__ inline Pair pair_of(RopePairs pairs, int half, int i) {
  return pairs == RopePairs::kInterleaved ? Pair{2 * i, 2 * i + 1} : Pair{i, i + half};
}

__device__ inline void rotate(float& a, float& b, float cos, float sin) {
  const float rotated_a = __fmaf_rn(a, cos, -__fmul_rn(b, sin));
  const float rotated_b = __fmaf_rn(a, sin, __fmul_rn(b, cos));
  a = rotated_a;
  b = rotated_b;
}

}  // namespace llorch::cuda
