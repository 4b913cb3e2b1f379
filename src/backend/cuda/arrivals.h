// Blocks that share work: each leaves its part in device memory, and the last to come joins them; for .cu files.
#pragma once

#include "backend/cuda/device_code.h"

namespace llorch::cuda {

// Of n blocks: whether this one is the last to come here. All threads ask; what the others have written before is
// visible.
__device__ inline bool comes_last(unsigned& arrivals, unsigned n, unsigned& shared) {
  __syncthreads();
  if (threadIdx.x == 0) {  // fences for all: what they wrote is ordered before them by the barrier
    __threadfence();
    shared = atomicAdd(&arrivals, 1u) + 1 == n ? 1u : 0u;
    if (shared != 0) arrivals = 0;  // for the next launch
    __threadfence();
  }
  __syncthreads();
  return shared != 0;
}

}  // namespace llorch::cuda
