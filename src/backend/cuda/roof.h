// What the current CUDA device can do at best.
#pragma once

#include "backend/backend.h"

namespace llorch::cuda {

// The best of several read-only kernels over 1 GiB (or half of what is free), multiply-adds from registers, and
// measure_matrix_roof().
Roof measure_roof(int n_multiprocessors, bool has_wgmma);

// Operations per second of the best of several loops that multiply 16-bit matrices from shared memory
// (roof_matrix.h): with wgmma where the device has it, else with mma.sync, which all devices here have.
double measure_matrix_roof(int n_multiprocessors, bool has_wgmma, int iterations);

}  // namespace llorch::cuda
