#include "backend/cpu/roof.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>

#include "backend/cpu/layout.h"

namespace llorch::cpu {
namespace {

constexpr size_t kBytes = size_t{256} << 20;  // far beyond the caches
constexpr int kRepeats = 4;  // a loop's figure is its mean over about 30 ms: shorter bursts are no roof

// One task for each thread.
double seconds_of(ThreadPool& pool, const std::function<void(uint32_t)>& work) {
  const auto start = std::chrono::steady_clock::now();
  const auto n_tasks = static_cast<uint32_t>(pool.size());
  pool.run({&n_tasks, 1}, [&](size_t, uint32_t task, int) { work(task); });
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

}  // namespace

Roof measure_roof(ThreadPool& pool, const Kernels& kernels) {
  Roof roof;
  std::atomic<double> sink{0.0};  // keeps the loops' results alive
  Buffer buffer(kBytes);
  const size_t share = kBytes / static_cast<size_t>(pool.size()) / 4096 * 4096;
  seconds_of(pool, [&](uint32_t t) { std::memset(buffer.data() + t * share, 0x5a, share); });
  for (const auto loop : kernels.read_loops) {
    const double s = seconds_of(pool, [&](uint32_t t) {
      for (int i = 0; i < kRepeats; ++i) sink = loop(buffer.data() + t * share, share);
    });
    roof.read_bytes_per_s =
        std::max(roof.read_bytes_per_s, static_cast<double>(share * static_cast<size_t>(pool.size())) * kRepeats / s);
  }
  constexpr long kIterations = 1'000'000;
  for (int i = 0; i < kRepeats; ++i) {
    const double s = seconds_of(pool, [&](uint32_t) { sink = kernels.fma_loop(kIterations); });
    roof.flops_per_s = std::max(roof.flops_per_s, 2.0 * kernels.fma_lanes * kIterations * pool.size() / s);
  }
  return roof;
}

}  // namespace llorch::cpu
