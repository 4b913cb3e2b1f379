// What a plan will take of a CUDA device's memory, by the sizes that its allocations have.
#pragma once

#include "backend/backend.h"

namespace llorch::cuda {

std::vector<MemoryNeed> memory_needs(const Plan& plan, const CompileOptions& options, int n_multiprocessors);

}  // namespace llorch::cuda
