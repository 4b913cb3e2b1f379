#include "backend/cuda/roof.h"

#include <algorithm>

#include "backend/cuda/kernels.h"
#include "backend/cuda/memory.h"

namespace llorch::cuda {
namespace {

constexpr size_t kReadBytes = size_t{1} << 30;
constexpr int kRepeats = 5;

// The best of some runs, the first of which is not counted.
template <typename Work>
double best_seconds(const Stream& stream, Work work) {
  double best = 1e9;
  for (int i = 0; i <= kRepeats; ++i) {
    Event begin(true), end(true);
    begin.record(stream);
    work();
    end.record(stream);
    end.wait();
    if (i > 0) best = std::min(best, 1e-3 * static_cast<double>(end.ms_since(begin)));
  }
  return best;
}

}  // namespace

Roof measure_roof(int n_multiprocessors) {
  constexpr MemoryUse kUse = {"memory.roof", "buffer of the read roof", "free memory on the device"};
  const size_t bytes = std::min(kReadBytes, device_memory().free / 2) >> 20 << 20;
  const Stream stream;
  DeviceArray<uint4> data(kUse, bytes / sizeof(uint4));
  DeviceArray<unsigned> sink(kUse, static_cast<size_t>(n_multiprocessors) * 32);
  stream.fill_bytes(data.data(), 0x5a, data.bytes());
  Roof roof;
  for (const int unroll : {1, 4, 8})
    for (const int blocks_each : {4, 8, 16, 32}) {
      const double s = best_seconds(stream, [&] {
        read_all({stream.get()}, data.data(), bytes, unroll, n_multiprocessors * blocks_each, sink.data());
      });
      roof.read_bytes_per_s = std::max(roof.read_bytes_per_s, static_cast<double>(bytes) / s);
    }
  constexpr int kIterations = 20'000, kBlocksEach = 8, kThreads = 256, kChains = 8;
  const double s = best_seconds(stream, [&] {
    multiply_add({stream.get()}, kIterations, n_multiprocessors * kBlocksEach, reinterpret_cast<float*>(sink.data()));
  });
  roof.flops_per_s = 2.0 * kIterations * kChains * kThreads * kBlocksEach * n_multiprocessors / s;
  return roof;
}

}  // namespace llorch::cuda
