// The kernel table of AVX-512; the build compiles this file for that instruction set alone.
#include "backend/cpu/kernels.h"

#if defined(__AVX512F__)

#include "backend/cpu/kernel_table.h"
#include "backend/cpu/lanes_avx512.h"

namespace llorch::cpu {

const Kernels* avx512_kernels() {
  static constexpr Kernels kKernels = make_kernels<Avx512Lanes<false>>("avx512");
  return &kKernels;
}

}  // namespace llorch::cpu

#else

const llorch::cpu::Kernels* llorch::cpu::avx512_kernels() { return nullptr; }

#endif
