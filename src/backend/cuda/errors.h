// What CUDA calls answer, as exceptions. Kernels include this too, so it stands without fmt, which nvcc does not take.
#pragma once

#include <cuda_runtime.h>

namespace llorch::cuda {

// After one of these nothing brings the device back into this process.
bool is_device_lost(cudaError_t error);

// Throws if a call failed: "<doing>: cudaErrorX (text)". A CodedError of VRAM_OOM if memory is missing, of
// DEVICE_LOST if the device is lost, else an Error.
void check(cudaError_t error, const char* doing);

// A product over so many columns has no room in a multiprocessor's shared memory.
[[noreturn]] void fail_too_wide(int columns);

}  // namespace llorch::cuda
