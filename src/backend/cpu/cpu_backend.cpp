#include "backend/cpu/cpu_backend.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <thread>

#include "backend/cpu/isa.h"
#include "backend/cpu/program.h"
#include "backend/cpu/roof.h"
#include "backend/memory.h"

#if defined(__linux__)
#include <sched.h>
#endif

namespace llorch {
namespace {

// Processors that this process may use: containers and taskset narrow them.
int usable_processors() {
#if defined(__linux__)
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) return std::max(1, CPU_COUNT(&set));
#endif
  return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

const cpu::Kernels& choose_kernels(const std::string& isa) {
  const std::vector<const cpu::Kernels*> tables = cpu::available_kernels();
  if (isa.empty()) return *tables.front();
  for (const cpu::Kernels* table : tables)
    if (table->name == isa) return *table;
  fail("instruction set \"{}\" is not one that this machine runs; it runs {}", isa, fmt::join(cpu_isa_names(), ", "));
}

class CpuBackend final : public Backend {
 public:
  explicit CpuBackend(const CpuOptions& options)
      : kernels_(choose_kernels(options.isa)),
        pool_(std::make_shared<cpu::ThreadPool>(options.threads > 0 ? options.threads : usable_processors())) {}

  BackendInfo info() const override {
    return {"cpu", fmt::format("{} ({}, {} threads)", cpu::cpu_name(), kernels_.name, pool_->size())};
  }

  Roof measure_roof() override { return cpu::measure_roof(*pool_, kernels_); }

  std::vector<MemoryNeed> memory_needs(const Plan& plan, const CompileOptions& options) const override {
    return cpu::memory_needs(plan, options, pool_->size());
  }

  std::shared_ptr<const PlacedWeights> place(const Plan& plan, const WeightSource& source) override {
    return allocate(kWeightMemory, weight_bytes(plan),
                    [&] { return std::make_shared<const cpu::CpuWeights>(plan, source, *pool_); });
  }

  std::unique_ptr<Program> compile(const Plan& plan, std::shared_ptr<const PlacedWeights> weights,
                                   const CompileOptions& options) override {
    check_kv(options.kv);
    check_numerics(*this, options.numerics);
    auto own = std::dynamic_pointer_cast<const cpu::CpuWeights>(weights);
    LLORCH_CHECK(own != nullptr, "weights were placed by another backend");
    return std::make_unique<cpu::CpuProgram>(plan, std::move(own), options, pool_, kernels_, info().device);
  }

 private:
  const cpu::Kernels& kernels_;
  const std::shared_ptr<cpu::ThreadPool> pool_;  // programs run on it too
};

}  // namespace

std::unique_ptr<Backend> make_cpu_backend(const CpuOptions& options) { return std::make_unique<CpuBackend>(options); }

std::vector<std::string> cpu_isa_names() {
  std::vector<std::string> names;
  for (const cpu::Kernels* table : cpu::available_kernels()) names.emplace_back(table->name);
  return names;
}

}  // namespace llorch
