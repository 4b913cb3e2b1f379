// The loops behind the machine's roofs: reading memory and multiply-adds. Included by one source file for each
// instruction set (see linear_kernels.h).
#pragma once

#include "backend/cpu/kernels.h"

namespace llorch::cpu {
namespace {

// Reads every byte once (bytes: a multiple of 256), in order, with the prefetch that the linear kernels use.
template <typename L>
double read_loop(const std::byte* data, size_t bytes) {
  using I = typename L::I;
  I sum[4] = {L::zero_i(), L::zero_i(), L::zero_i(), L::zero_i()};
  for (size_t i = 0; i + 256 <= bytes; i += 256)
    for (size_t j = 0; j < 4; ++j) {
      L::prefetch(data + i + j * 64 + 2048);
      sum[j] = L::add_i(sum[j], L::load_i(data + i + j * 64));
    }
  return L::reduce_add_i(L::add_i(L::add_i(sum[0], sum[1]), L::add_i(sum[2], sum[3])));
}

// 24 sums (or as many as there are registers for) of 16 lanes, each iteration one multiply-add to each.
template <typename L>
double fma_loop(long iterations) {
  using F = typename L::F;
  constexpr int kSums = L::kFloatTile * L::kFloatGroups;
  F sum[kSums];
  for (int i = 0; i < kSums; ++i) sum[i] = L::set1(static_cast<float>(i));
  F a = L::set1(0.9999f), b = L::set1(1e-4f);
  for (long n = 0; n < iterations; ++n) {
    asm volatile("" ::: "memory");
    for (int i = 0; i < kSums; ++i) sum[i] = L::fma(sum[i], a, b);
  }
  F total = L::zero();
  for (int i = 0; i < kSums; ++i) total = L::add(total, sum[i]);
  return L::reduce_max(total);
}

}  // namespace
}  // namespace llorch::cpu
