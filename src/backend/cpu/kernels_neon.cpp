// The kernel table of NEON; the build compiles this file for that instruction set alone.
#include "backend/cpu/kernels.h"

#if defined(__aarch64__)

#include "backend/cpu/kernel_table.h"
#include "backend/cpu/lanes_neon.h"

namespace llorch::cpu {

const Kernels* neon_kernels() {
  static constexpr Kernels kKernels = make_kernels<NeonLanes>("neon");
  return &kKernels;
}

}  // namespace llorch::cpu

#else

const llorch::cpu::Kernels* llorch::cpu::neon_kernels() { return nullptr; }

#endif
