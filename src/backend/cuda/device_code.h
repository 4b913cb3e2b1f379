// What all kernels share: lanes, exact operations, sums in the fixed tree, shared memory.
//
// Kernels are written in a subset of CUDA C++ that is also C++20 with the few names of tests/cuda_emulator: dynamic
// shared memory only, warps of 32, full masks, no warp votes.
#pragma once

#include <cuda_runtime.h>

#include <bit>
#include <cstdint>

#include "base/half.h"

namespace llorch::cuda {

inline constexpr int kWarp = 32;
inline constexpr unsigned kAllLanes = 0xffffffffu;

// Shared memory of the block, as many bytes as its launch asks for, 16-byte aligned.
__device__ inline unsigned char* shared_memory() {
#if defined(__CUDACC__)
  extern __shared__ __align__(16) unsigned char memory[];
  return memory;
#else
  return cuda_emulator::dynamic_shared();
#endif
}

__device__ inline int lane_id() { return static_cast<int>(threadIdx.x) % kWarp; }
__device__ inline int warp_id() { return static_cast<int>(threadIdx.x) / kWarp; }
__device__ inline int n_warps() { return static_cast<int>(blockDim.x) / kWarp; }

// Exact; one instruction on a device.
__device__ inline float widen_f16(uint16_t h) {
#if defined(__CUDA_ARCH__)
  float f;
  asm("cvt.f32.f16 %0, %1;" : "=f"(f) : "h"(h));
  return f;
#else
  return f16_to_f32(h);
#endif
}

// f32_to_f16_saturate() in three instructions (of NaN only that it is NaN).
__device__ inline uint16_t narrow_f16(float f) {
#if defined(__CUDA_ARCH__)
  constexpr float kLargest = 65504.0f;
  const float inside = f > kLargest ? kLargest : f < -kLargest ? -kLargest : f;
  uint16_t h;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(h) : "f"(inside));
  return h;
#else
  return f32_to_f16_saturate(f);
#endif
}

// The 32 lanes' sum by the fixed tree 16, 8, 4, 2, 1; every lane gets it: a + b is b + a, so each lane's tree is the
// first one's.
__device__ inline float tree_sum(float partial) {
#pragma unroll
  for (int width = kWarp / 2; width > 0; width /= 2)
    partial = __fadd_rn(partial, __shfl_xor_sync(kAllLanes, partial, width));
  return partial;
}

__device__ inline int integer_sum(int value) { return __reduce_add_sync(kAllLanes, value); }
__device__ inline unsigned integer_max(unsigned value) { return __reduce_max_sync(kAllLanes, value); }

// The largest by `>`, so that NaN is never chosen.
__device__ inline float float_max(float value) {
#pragma unroll
  for (int width = kWarp / 2; width > 0; width /= 2) {
    const float other = __shfl_xor_sync(kAllLanes, value, width);
    value = other > value ? other : value;
  }
  return value;
}

}  // namespace llorch::cuda
