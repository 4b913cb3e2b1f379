#include "backend/cuda/cuda_backend.h"

#include "backend/cuda/program.h"
#include "backend/cuda/roof.h"

namespace llorch {
namespace {

constexpr int kWgmmaMajor = 9;    // no other has wgmma
constexpr int kMinimumMajor = 8;  // compute capability of the oldest kernels in this binary

std::string version_text(int version) { return fmt::format("{}.{}", version / 1000, version % 1000 / 10); }

cudaDeviceProp properties_of(int device) {
  cudaDeviceProp properties{};
  cuda::check(cudaGetDeviceProperties(&properties, device), "the device does not say what it is");
  return properties;
}

class CudaBackend final : public Backend {
 public:
  // The device's context is made here, once for all that this process does on it: some tenths of a second.
  explicit CudaBackend(int index) {
    cuda::use_device(index);
    cuda::check(cudaFree(nullptr), "the device's context was not made");
    const cudaDeviceProp properties = properties_of(index);
    int driver = 0;
    cuda::check(cudaDriverGetVersion(&driver), "the driver does not say its version");
    device_ = {.index = index,
               .n_multiprocessors = properties.multiProcessorCount,
               .cache_bytes = static_cast<size_t>(properties.l2CacheSize),
               .overlaps_kernels = properties.major >= 9,
               .shared = {properties.sharedMemPerBlockOptin, properties.sharedMemPerMultiprocessor},
               .has_wgmma = properties.major == kWgmmaMajor,
               .text = fmt::format("{} (device {}, compute capability {}.{}, driver for CUDA {})", properties.name,
                                   index, properties.major, properties.minor, version_text(driver))};
  }

  BackendInfo info() const override { return {"cuda", device_.text}; }

  std::optional<std::string> why_not_fast() const override { return std::nullopt; }

  std::optional<DeviceMemory> memory() const override {
    cuda::use_device(device_.index);
    return cuda::device_memory();
  }

  std::vector<MemoryNeed> memory_needs(const Plan& plan, const CompileOptions& options) const override {
    return cuda_memory_needs(plan, options);
  }

  Roof measure_roof() override {
    cuda::use_device(device_.index);
    return cuda::measure_roof(device_.n_multiprocessors, device_.has_wgmma);
  }

  std::shared_ptr<const PlacedWeights> place(const Plan& plan, const WeightSource& source) override {
    return std::make_shared<const cuda::CudaWeights>(device_.index, plan, source);
  }

  std::unique_ptr<Program> compile(const Plan& plan, std::shared_ptr<const PlacedWeights> weights,
                                   const CompileOptions& options) override {
    check_kv(options.kv);
    check_numerics(*this, options.numerics);
    auto own = std::dynamic_pointer_cast<const cuda::CudaWeights>(weights);
    LLORCH_CHECK(own != nullptr, "weights were placed by another backend");
    cuda::use_device(device_.index);
    return std::make_unique<cuda::CudaProgram>(plan, std::move(own), options, device_);
  }

 private:
  cuda::Device device_;
};

}  // namespace

std::optional<std::string> cuda_is_missing(const CudaOptions& options) {
  int driver = 0, runtime = 0, n_devices = 0;
  if (cudaDriverGetVersion(&driver) != cudaSuccess || driver == 0) {
    cudaGetLastError();
    return "there is no NVIDIA driver on this system (libcuda.so.1 cannot be loaded)";
  }
  cudaRuntimeGetVersion(&runtime);
  const cudaError_t error = cudaGetDeviceCount(&n_devices);
  cudaGetLastError();
  if (error == cudaErrorInsufficientDriver)
    return fmt::format("the NVIDIA driver is for CUDA {}, this llorch needs one for CUDA {}", version_text(driver),
                       version_text(runtime));
  if (error == cudaErrorNoDevice || (error == cudaSuccess && n_devices == 0))
    return fmt::format("the NVIDIA driver (for CUDA {}) sees no device", version_text(driver));
  if (error != cudaSuccess)
    return fmt::format("the NVIDIA driver (for CUDA {}) does not answer: {} ({})", version_text(driver),
                       cudaGetErrorName(error), cudaGetErrorString(error));
  if (options.device < 0 || options.device >= n_devices)
    return fmt::format("there is no device {}: the devices are 0 to {}", options.device, n_devices - 1);
  const cudaDeviceProp properties = properties_of(options.device);
  if (properties.major < kMinimumMajor)
    return fmt::format("device {} ({}) has compute capability {}.{}, this llorch needs {}.0 or newer", options.device,
                       properties.name, properties.major, properties.minor, kMinimumMajor);
  return std::nullopt;
}

std::unique_ptr<Backend> make_cuda_backend(const CudaOptions& options) {
  if (const auto missing = cuda_is_missing(options)) fail("the cuda backend cannot be used: {}", *missing);
  return std::make_unique<CudaBackend>(options.device);
}

int cuda_device_count() {
  int n = 0;
  if (cudaGetDeviceCount(&n) != cudaSuccess) n = 0;
  cudaGetLastError();
  return n;
}

}  // namespace llorch
