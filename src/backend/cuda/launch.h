// Launches a kernel; for .cu files.
//
// A kernel may begin while the one before it still runs (programmatic dependent launch, compute capability 9.0): it
// calls wait_for_inputs() before it reads or writes anything that others write, weights excepted, which nobody does.
// Every kernel of a step calls it, so that when it returns all earlier kernels are over.
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

// Throws as check() does.
template <typename... Parameters, typename... Arguments>
void launch(const KernelStream& stream, const Shape& shape, void (*kernel)(Parameters...), Arguments&&... arguments) {
  cudaLaunchAttribute overlap = {};
  overlap.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  overlap.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config = {};
  config.gridDim = shape.grid;
  config.blockDim = shape.block;
  config.dynamicSmemBytes = shape.shared_bytes;
  config.stream = stream.stream;
  config.attrs = &overlap;
  config.numAttrs = stream.overlaps ? 1 : 0;
  check(cudaLaunchKernelEx(&config, kernel, std::forward<Arguments>(arguments)...), "the kernel could not be launched");
}

// Until all kernels before this one are over; then the next one may begin.
__device__ inline void wait_for_inputs() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
  asm volatile("griddepcontrol.launch_dependents;");
#endif
}

}  // namespace llorch::cuda
