// What the current CUDA device can do at best.
#pragma once

#include "backend/backend.h"

namespace llorch::cuda {

// The best of several read-only kernels over 1 GiB (or half of what is free), and multiply-adds from registers.
Roof measure_roof(int n_multiprocessors);

}  // namespace llorch::cuda
