#include "backend/cpu/isa.h"

#include <fstream>

#include "base/error.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace llorch::cpu {
namespace {

void add(std::vector<const Kernels*>& tables, const Kernels* table, bool runs) {
  if (table != nullptr && runs) tables.push_back(table);
}

}  // namespace

#if defined(__x86_64__)

namespace {

// By CPUID: clang 14 does not know this feature by name.
bool has_f16c() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  return __get_cpuid(1, &a, &b, &c, &d) != 0 && (c & bit_F16C) != 0;
}

}  // namespace

std::vector<const Kernels*> available_kernels() {
  std::vector<const Kernels*> tables;
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c();
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
  add(tables, avx512vnni_kernels(), avx512 && __builtin_cpu_supports("avx512vnni"));
  add(tables, avx512_kernels(), avx512);
  add(tables, avx2_kernels(), avx2);
  if (tables.empty()) fail("this processor ({}) lacks AVX2, FMA or F16C, which the CPU backend needs", cpu_name());
  return tables;
}

#else

std::vector<const Kernels*> available_kernels() {
  std::vector<const Kernels*> tables;
  add(tables, neon_kernels(), true);  // every AArch64 processor has it
  if (tables.empty()) fail("the CPU backend has no kernels for this processor ({})", cpu_name());
  return tables;
}

#endif

std::string cpu_name() {
  std::ifstream info("/proc/cpuinfo");
  for (std::string line; std::getline(info, line);)
    if (line.rfind("model name", 0) == 0)
      if (const size_t colon = line.find(':'); colon != std::string::npos && colon + 2 < line.size())
        return line.substr(colon + 2);
#if defined(__aarch64__)
  return "AArch64 processor";
#else
  return "x86-64 processor";
#endif
}

}  // namespace llorch::cpu
