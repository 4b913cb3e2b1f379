// Which backend the flags ask for: the only place that knows all of them.
#include <fmt/format.h>

#include "app/load.h"
#include "backend/cpu/cpu_backend.h"
#include "backend/reference/reference_backend.h"

#ifdef LLORCH_HAS_CUDA
#include "backend/cuda/cuda_backend.h"
#endif

namespace llorch {
namespace {

// The best one that is there. A device other than 0 is one that only cuda can have.
std::string best_backend([[maybe_unused]] const LoadOptions& options) {
#ifdef LLORCH_HAS_CUDA
  if (options.isa.empty() && (options.device != 0 || !cuda_is_missing({options.device}))) return "cuda";
#endif
  return "cpu";
}

std::unique_ptr<Backend> make_cuda([[maybe_unused]] const LoadOptions& options) {
#ifdef LLORCH_HAS_CUDA
  if (const auto missing = cuda_is_missing({options.device}))
    throw InputError("--backend cuda: " + *missing);
  return make_cuda_backend({options.device});
#else
  throw InputError(
      "--backend cuda: this llorch was built without it (LLORCH_CUDA was OFF, or nvcc not found); it has cpu and "
      "reference");
#endif
}

}  // namespace

void add_backend_options(CLI::App& command, LoadOptions& options) {
  command.add_option("--backend", options.backend, "Backend (default: the best one that is present)")
      ->check(CLI::IsMember({"cpu", "cuda", "metal", "reference"}));
  command.add_option("--device,--cuda-device,--metal-device", options.device, "Device of the backend")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  command.add_option("--numerics", options.numerics, "exact: the same bits on every backend (default)")
      ->check(CLI::IsMember({"exact", "fast"}));
  command.add_option("--threads", options.threads, "Threads (default: one for each processor)")
      ->check(CLI::Range(1, 1024));
}

std::unique_ptr<Backend> make_backend(const LoadOptions& options) {
  const std::string name = options.backend.empty() ? best_backend(options) : options.backend;
  if (options.numerics == "fast")
    throw InputError("--numerics fast: the tensor-core kernels do not exist yet; every backend has exact");
  if (!options.isa.empty() && name != "cpu")
    throw InputError(fmt::format("--isa {}: it belongs to the backend cpu, not {}", options.isa, name));
  if (name == "cuda") return make_cuda(options);
  if (name == "metal") throw InputError("--backend metal: it does not exist yet; there are cpu, cuda and reference");
  if (options.device != 0)
    throw InputError(fmt::format("--device {}: the backend {} has device 0 only", options.device, name));
  if (name == "cpu") return make_cpu_backend({options.threads, options.isa});
  return make_reference_backend();
}

}  // namespace llorch
