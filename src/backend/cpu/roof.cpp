#include "backend/cpu/roof.h"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>

#include "backend/cpu/layout.h"

namespace llorch::cpu {
namespace {

constexpr size_t kReadBytes = size_t{1} << 30;  // of each loop, at least: some 30 ms; shorter bursts are no roof

// Of the buffer: far beyond the caches, of which a server may have hundreds of megabytes.
size_t buffer_bytes() {
  size_t cache = 0;
#if defined(_SC_LEVEL3_CACHE_SIZE)
  cache = static_cast<size_t>(std::max(0L, sysconf(_SC_LEVEL3_CACHE_SIZE)));
#endif
  return std::clamp(2 * cache, size_t{256} << 20, size_t{1} << 30);
}

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
  const size_t bytes = buffer_bytes();
  Buffer buffer(bytes);
  const size_t share = bytes / static_cast<size_t>(pool.size()) / 4096 * 4096;
  const size_t repeats = std::max<size_t>(1, kReadBytes / bytes);
  seconds_of(pool, [&](uint32_t t) { std::memset(buffer.data() + t * share, 0x5a, share); });
  for (const auto loop : kernels.read_loops) {
    const double s = seconds_of(pool, [&](uint32_t t) {
      for (size_t i = 0; i < repeats; ++i) sink = loop(buffer.data() + t * share, share);
    });
    roof.read_bytes_per_s =
        std::max(roof.read_bytes_per_s, static_cast<double>(share * static_cast<size_t>(pool.size()) * repeats) / s);
  }
  constexpr long kIterations = 1'000'000;
  for (int i = 0; i < 4; ++i) {
    const double s = seconds_of(pool, [&](uint32_t) { sink = kernels.fma_loop(kIterations); });
    roof.flops_per_s = std::max(roof.flops_per_s, 2.0 * kernels.fma_lanes * kIterations * pool.size() / s);
  }
  return roof;
}

}  // namespace llorch::cpu
