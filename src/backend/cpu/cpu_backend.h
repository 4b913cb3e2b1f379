// The CPU backend: vector kernels chosen at run time, threads, fused phases; the reference's bits.
#pragma once

#include <memory>
#include <string>

#include "backend/backend.h"

namespace llorch {

struct CpuOptions {
  int threads = 0;  // 0: one for each processor that this process may use
  std::string
      isa;  // "" : the best that runs here; else a name that cpu_isa_names() gives. Error if it does not run here
};

// Throws Error if the machine runs none of the compiled instruction sets.
std::unique_ptr<Backend> make_cpu_backend(const CpuOptions& options = {});

// Instruction sets that run here, best first: "avx512vnni", "avx512", "avx2", "neon".
std::vector<std::string> cpu_isa_names();

}  // namespace llorch
