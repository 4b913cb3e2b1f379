// The CUDA backend: the reference's bits on an NVIDIA GPU.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "backend/backend.h"

namespace llorch {

struct CudaOptions {
  int device = 0;
};

// What is missing for this device to be used, in a sentence: driver, device, compute capability. Nothing: it is there.
std::optional<std::string> cuda_is_missing(const CudaOptions& options = {});

// Throws Error with that sentence if the device cannot be used.
std::unique_ptr<Backend> make_cuda_backend(const CudaOptions& options = {});

// Backend::memory_needs(), which is the same on every device, and without one. memory_needs.cpp
std::vector<MemoryNeed> cuda_memory_needs(const Plan& plan, const CompileOptions& options);

// Devices that are visible; 0 without a driver.
int cuda_device_count();

}  // namespace llorch
