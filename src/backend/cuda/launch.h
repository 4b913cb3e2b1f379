// Launches a kernel; for .cu files.
//
// A kernel may begin while the ones before it still run (programmatic dependent launch, compute capability 9.0): it
// calls wait_for_inputs() before it writes anything, or reads what an earlier kernel of the step writes. Weights, the
// batch and the keys and values of earlier steps it may ask for before. Every kernel of a step waits, so that when it
// has waited all earlier kernels are over; those of one Linear in several types do so at their end (linear.h).
//
// All kernels ask for the same split of a multiprocessor's memory, all of it shared: two kernels that differ in it
// cannot be on one multiprocessor together, and a kernel could not begin before the one before it had ended.
#pragma once

#include <cuda_runtime.h>

#include <utility>

#include "backend/cuda/errors.h"
#include "backend/cuda/kernels.h"

namespace llorch::cuda {

struct Shape {
  dim3 grid, block;
  size_t shared_bytes = 0;
};

inline constexpr size_t kSharedBytesUnasked = 48 << 10;  // of a block; for more a kernel must ask

// Throws as check() does.
template <typename... Parameters, typename... Arguments>
void launch(const KernelStream& stream, const Shape& shape, void (*kernel)(Parameters...), Arguments&&... arguments) {
  if (shape.shared_bytes > kSharedBytesUnasked)
    check(
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shape.shared_bytes)),
        "a kernel cannot have so much shared memory");
  cudaLaunchAttribute attributes[2] = {};
  attributes[0].id = cudaLaunchAttributePreferredSharedMemoryCarveout;
  attributes[0].val.sharedMemCarveout = 100;  // percent
  attributes[1].id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attributes[1].val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config = {};
  config.gridDim = shape.grid;
  config.blockDim = shape.block;
  config.dynamicSmemBytes = shape.shared_bytes;
  config.stream = stream.stream;
  config.attrs = attributes;
  config.numAttrs = stream.overlaps ? 2 : 1;
  check(cudaLaunchKernelEx(&config, kernel, std::forward<Arguments>(arguments)...), "the kernel could not be launched");
}

// Asks for memory that a later kernel reads, into the second-level cache. bytes: a multiple of 16. Devices before 9.0
// do without.
__device__ inline void fetch_ahead([[maybe_unused]] const std::byte* memory, [[maybe_unused]] uint32_t bytes) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;" ::"l"(memory), "r"(bytes) : "memory");
#endif
}

// Lets the next kernel begin as soon as all blocks of this one have come so far.
__device__ inline void let_next_begin() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;");
#endif
}
// Returns when all kernels before this one are over.
__device__ inline void wait_for_earlier() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}
__device__ inline void wait_for_inputs() {
  let_next_begin();
  wait_for_earlier();
}

}  // namespace llorch::cuda
