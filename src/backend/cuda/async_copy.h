// Copies from device memory into shared memory that go on beside the thread that asked for them. For kernels.
//
// A thread's copies since its last commit_copies() are a group; wait_for_copies<n>() returns when all its groups but
// the last n are there, for this thread: for others behind the next barrier.
#pragma once

#include "backend/cuda/device_code.h"

namespace llorch::cuda {

// 16 bytes, both sides aligned to as many, past the first-level cache.
__device__ inline void copy_16(void* shared, const void* global) {
#if defined(__CUDA_ARCH__)
  asm volatile(
      "cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(static_cast<unsigned>(__cvta_generic_to_shared(shared))),
      "l"(global)
      : "memory");
#elif !defined(__CUDACC__)
  cuda_emulator::copy_async(shared, global, 16);
#endif
}

__device__ inline void copy_4(void* shared, const void* global) {
#if defined(__CUDA_ARCH__)
  asm volatile(
      "cp.async.ca.shared.global [%0], [%1], 4;" ::"r"(static_cast<unsigned>(__cvta_generic_to_shared(shared))),
      "l"(global)
      : "memory");
#elif !defined(__CUDACC__)
  cuda_emulator::copy_async(shared, global, 4);
#endif
}

__device__ inline void commit_copies() {
#if defined(__CUDA_ARCH__)
  asm volatile("cp.async.commit_group;" ::: "memory");
#elif !defined(__CUDACC__)
  cuda_emulator::commit_copies();
#endif
}

template <int kLeft>
__device__ void wait_for_copies() {
#if defined(__CUDA_ARCH__)
  asm volatile("cp.async.wait_group %0;" ::"n"(kLeft) : "memory");
#elif !defined(__CUDACC__)
  cuda_emulator::wait_for_copies(kLeft);
#endif
}

}  // namespace llorch::cuda
