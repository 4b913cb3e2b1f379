// The CUDA backend: on the first device of this machine, or emulated, where each device runs the blocks of a kernel in
// another order.
#include <cstdlib>

#include "backend/cuda/cuda_backend.h"
#include "backends_under_test.h"

namespace llorch::test {
namespace {

#ifdef LLORCH_CUDA_EMULATED
constexpr bool kIsEmulated = true;
#else
constexpr bool kIsEmulated = false;
#endif

TEST(Cuda, RunsHere) {
  LLORCH_SKIP_WITHOUT_BACKEND();
  EXPECT_EQ(one_backend()->info().name, "cuda");
  EXPECT_EQ(one_backend()->info().device.find("emulated") != std::string::npos, kIsEmulated);
}

}  // namespace

std::vector<BackendUnderTest> backends_under_test() {
  std::vector<BackendUnderTest> all;
  const int n = kIsEmulated ? cuda_device_count() : why_none().empty() ? 1 : 0;
  for (int device = 0; device < n; ++device) {
    auto backend = make_cuda_backend({device});
    std::string name = backend->info().device;
    all.push_back({std::move(name), std::move(backend), device == 0});
  }
  return all;
}

std::unique_ptr<Backend> one_backend() { return make_cuda_backend({}); }

std::string why_none() {
  const auto missing = cuda_is_missing();
  return missing ? "cuda was not run: " + *missing : std::string();
}

bool is_short_set() {
  return std::getenv("LLORCH_CONFORMANCE_SHORT") != nullptr ||
         (kIsEmulated && std::getenv("LLORCH_CONFORMANCE_FULL") == nullptr);
}

}  // namespace llorch::test
