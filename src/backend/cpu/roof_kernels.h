// The loops behind the machine's roofs: reading memory and multiply-adds. Included by one source file for each
// instruction set (see linear_kernels.h).
#pragma once

#include "backend/cpu/kernels.h"

namespace llorch::cpu {
namespace {

// Reads bytes (a multiple of 256 * kStreams) once, as kStreams sequences side by side, with the prefetch distance of
// the linear kernels.
template <typename L, int kStreams>
double read_streams(const std::byte* data, size_t bytes) {
  using I = typename L::I;
  I sum[kStreams];
  for (int s = 0; s < kStreams; ++s) sum[s] = L::zero_i();
  const size_t share = bytes / kStreams;
  for (size_t i = 0; i < share; i += 256)
#pragma GCC unroll 4
    for (int s = 0; s < kStreams; ++s) {
      const std::byte* p = data + s * share + i;
      for (size_t j = 0; j < 256; j += 64) {
        L::prefetch(p + j + 2048);
        sum[s] = L::add_i(sum[s], L::load_i(p + j));
      }
    }
  for (int s = 1; s < kStreams; ++s) sum[0] = L::add_i(sum[0], sum[s]);
  return L::reduce_add_i(sum[0]);
}

// 24 sums (or as many as there are registers for) of 16 lanes, each iteration one multiply-add to each.
template <typename L>
double fma_loop(long iterations) {
  using F = typename L::F;
  constexpr int kSums = L::kFloatTile * L::kFloatGroups;
  float start[kSums + kGroup];  // every lane begins elsewhere: equal lanes would be computed once for both
  for (int i = 0; i < kSums + kGroup; ++i) start[i] = static_cast<float>(i);
  F sum[kSums];
#pragma GCC unroll 32
  for (int i = 0; i < kSums; ++i) sum[i] = L::load(start + i);
  F a = L::set1(0.9999f), b = L::set1(1e-4f);
  for (long n = 0; n < iterations; ++n) {
#pragma GCC unroll 32
    for (int i = 0; i < kSums; ++i) sum[i] = L::fma(sum[i], a, b);
  }
  F total = L::zero();
#pragma GCC unroll 32
  for (int i = 0; i < kSums; ++i) total = L::add(total, sum[i]);
  return L::reduce_max(total);
}

}  // namespace
}  // namespace llorch::cpu
