// Which backend the flags ask for: the only place that knows all of them.
#include <fmt/format.h>

#include <CLI/CLI.hpp>

#include "app/memory_plan.h"
#include "backend/cpu/cpu_backend.h"
#include "backend/reference/reference_backend.h"

#ifdef LLORCH_HAS_CUDA
#include "backend/cuda/cuda_backend.h"
#endif

namespace llorch {
namespace {

// Why cuda cannot be used; empty if it can.
std::string why_no_cuda([[maybe_unused]] int device) {
#ifdef LLORCH_HAS_CUDA
  return cuda_is_missing({device}).value_or("");
#else
  return "this llorch was built without it (LLORCH_CUDA was OFF, or nvcc not found)";
#endif
}

std::unique_ptr<Backend> make_cuda(int device) {
  if (const std::string why = why_no_cuda(device); !why.empty())
    throw InputError(fmt::format("--backend cuda --device {}: {}", device, why));
#ifdef LLORCH_HAS_CUDA
  return make_cuda_backend({device});
#else
  return nullptr;
#endif
}

}  // namespace

void add_backend_options(CLI::App& command, LoadOptions& options) {
  command.add_option("--backend", options.backend, "Backend (default: the best one that is present)")
      ->check(CLI::IsMember({"cpu", "cuda", "metal", "reference"}));
  command.add_option("--device,--cuda-device,--metal-device", options.device, "Device of the backend")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  command
      .add_option("--numerics", options.numerics,
                  "exact: the same bits on every backend; fast: many rows on tensor cores, inside stated bounds "
                  "(default: fast on cuda where its device has it, else exact)")
      ->check(CLI::IsMember({"exact", "fast"}));
  command.add_option("--threads", options.threads, "Threads (default: one for each processor)")
      ->check(CLI::Range(1, 1024));
}

std::optional<MemoryPlace> place_without_device([[maybe_unused]] const LoadOptions& options) {
#ifdef LLORCH_HAS_CUDA
  if (options.backend == "cuda")
    if (const auto missing = cuda_is_missing({options.device}))
      return MemoryPlace{.backend = {"cuda", "a device that is not here: " + *missing},
                         .needs = cuda_memory_needs,
                         .memory = std::nullopt,
                         .numerics = options.numerics == "exact" ? Numerics::kExact : Numerics::kFast};
#endif
  return std::nullopt;
}

namespace {

std::unique_ptr<Backend> make_named(const std::string& name, const LoadOptions& options) {
  if (!options.isa.empty() && name != "cpu")
    throw InputError(fmt::format("--isa {}: it belongs to the backend cpu, not {}", options.isa, name));
  if (name == "cuda") return make_cuda(options.device);
  if (name == "metal") throw InputError("--backend metal: it does not exist yet; there are cpu, cuda and reference");
  if (options.device != 0)
    throw InputError(fmt::format("--device {}: the backend {} has device 0 only{}", options.device, name,
                                 options.backend.empty() ? "; cuda: " + why_no_cuda(options.device) : ""));
  if (name == "cpu") return make_cpu_backend({options.threads, options.isa});
  return make_reference_backend();
}

}  // namespace

std::unique_ptr<Backend> make_backend(const LoadOptions& options) {
  std::string name = options.backend;
  if (name.empty()) name = options.isa.empty() && why_no_cuda(options.device).empty() ? "cuda" : "cpu";
  auto backend = make_named(name, options);
  if (const auto why = backend->why_not_fast(); why && options.numerics == "fast")
    throw InputError(fmt::format("--numerics fast: the backend {} cannot be fast: {}", name, *why));
  return backend;
}

Numerics numerics_of(const LoadOptions& options, const Backend& backend, Numerics preferred) {
  if (options.numerics.empty()) return backend.why_not_fast() ? Numerics::kExact : preferred;
  return options.numerics == "fast" ? Numerics::kFast : Numerics::kExact;
}

std::string to_string(Numerics numerics) { return numerics == Numerics::kFast ? "fast" : "exact"; }

}  // namespace llorch
