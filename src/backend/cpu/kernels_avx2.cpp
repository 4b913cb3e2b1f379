// The kernel table of AVX2; the build compiles this file for that instruction set alone.
#include "backend/cpu/kernels.h"

#if defined(__x86_64__)

#include "backend/cpu/kernel_table.h"
#include "backend/cpu/lanes_avx2.h"

namespace llorch::cpu {

const Kernels* avx2_kernels() {
  static constexpr Kernels kKernels = make_kernels<Avx2Lanes>("avx2");
  return &kKernels;
}

}  // namespace llorch::cpu

#else

const llorch::cpu::Kernels* llorch::cpu::avx2_kernels() { return nullptr; }

#endif
