// Which instruction sets this machine runs.
#pragma once

#include <string>
#include <vector>

#include "backend/cpu/kernels.h"

namespace llorch::cpu {

// Tables that this binary holds and this machine runs, best first. Throws Error naming what is missing if there is none
// (x86-64 needs AVX2, FMA and F16C).
std::vector<const Kernels*> available_kernels();

// "AMD EPYC 9654 96-Core Processor", or the architecture's name.
std::string cpu_name();

}  // namespace llorch::cpu
