// The roofs of this machine: how fast its memory is read and its registers multiply.
#pragma once

#include "backend/backend.h"
#include "backend/cpu/kernels.h"
#include "backend/cpu/thread_pool.h"

namespace llorch::cpu {

// With all threads of the pool, 256 MiB of memory, the best loop taken.
Roof measure_roof(ThreadPool& pool, const Kernels& kernels);

}  // namespace llorch::cpu
