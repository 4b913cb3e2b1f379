#include "backend/cuda/roof.h"

#include <algorithm>
#include <random>

#include "backend/cuda/memory.h"
#include "backend/cuda/roof_matrix.h"
#include "base/half.h"

namespace llorch::cuda {
namespace {

constexpr size_t kReadBytes = size_t{1} << 30;
constexpr int kRepeats = 5;
constexpr int kMatrixIterations = 4096;  // of 2 ** 10 cycles each on an H100
constexpr MemoryUse kUse = {"memory.roof", "buffers of the roofs", "free memory on the device"};

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

// Values of a standard normal distribution: a tensor core that multiplies zeros, or one value, costs less power and has
// a higher clock than any work gives it.
std::vector<uint16_t> normal_values(DType dtype, size_t n) {
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  std::vector<uint16_t> values(n);
  for (uint16_t& value : values) {
    const float x = normal(random);
    value = dtype == DType::kBF16 ? f32_to_bf16(x) : f32_to_f16_saturate(x);
  }
  return values;
}

}  // namespace

double measure_matrix_roof(int n_multiprocessors, bool has_wgmma, int iterations) {
  const Stream stream;
  const KernelStream kernels = {stream.get(), false, n_multiprocessors};
  DeviceArray<uint4> operands(kUse, size_t{kRoofUnits} * kRoofRows);
  DeviceArray<float> sums(kUse, size_t{kRoofThreads} * static_cast<size_t>(n_multiprocessors));
  double best = 0.0;
  const auto measure = [&](int n_threads, const auto& multiply) {
    const double s = best_seconds(stream, multiply);
    best = std::max(best, kRoofFlops * iterations * n_threads * n_multiprocessors / s);
  };
  const auto give_operands = [&](DType dtype) {
    const std::vector<uint16_t> values = normal_values(dtype, operands.size() * 8);
    stream.to_device(reinterpret_cast<uint16_t*>(operands.data()), values.data(), values.size());
    stream.synchronize();
  };
  if (!has_wgmma) {
    give_operands(DType::kF16);
    measure(kRoofThreads, [&] { multiply_by_warps(kernels, operands.data(), iterations, sums.data()); });
    return best;
  }
  for (const DType dtype : {DType::kF16, DType::kBF16}) {
    give_operands(dtype);
    for (const int columns : {128, 256})
      for (const int n_warpgroups : {1, 2})
        measure(kRoofThreads / 2 * n_warpgroups, [&] {
          multiply_by_warpgroups(kernels, {dtype, columns, n_warpgroups}, operands.data(), iterations, sums.data());
        });
  }
  return best;
}

Roof measure_roof(int n_multiprocessors, bool has_wgmma) {
  const size_t bytes = std::min(kReadBytes, device_memory().free / 2) >> 20 << 20;
  const Stream stream;
  DeviceArray<uint4> data(kUse, bytes / sizeof(uint4));
  DeviceArray<unsigned> sink(kUse, static_cast<size_t>(n_multiprocessors) * 32);
  stream.fill_bytes(data.data(), 0x5a, data.bytes());
  Roof roof;
  // First: the device's clocks are lower for a while afterwards, and what is timed next to its roofs would have them.
  roof.matrix_flops_per_s = measure_matrix_roof(n_multiprocessors, has_wgmma, kMatrixIterations);
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
