// Launches a kernel on a stream; for .cu files.
#pragma once

#include <cuda_runtime.h>

#include <utility>

#include "backend/cuda/errors.h"

namespace llorch::cuda {

struct Shape {
  dim3 grid, block;
  size_t shared_bytes = 0;
};

// Throws as check() does.
template <typename... Parameters, typename... Arguments>
void launch(cudaStream_t stream, const Shape& shape, void (*kernel)(Parameters...), Arguments&&... arguments) {
  cudaLaunchConfig_t config = {};
  config.gridDim = shape.grid;
  config.blockDim = shape.block;
  config.dynamicSmemBytes = shape.shared_bytes;
  config.stream = stream;
  check(cudaLaunchKernelEx(&config, kernel, std::forward<Arguments>(arguments)...), "the kernel could not be launched");
}

}  // namespace llorch::cuda
