// Quantized weights as f16, two in a word at a time: codes are exact in f16, and so is, with few exceptions, a code
// times its 6-bit scale. For kernels.
#pragma once

#include "backend/cuda/codes.h"
#include "backend/cuda/half_rows.h"

namespace llorch::cuda {

#if defined(__CUDACC__)
__device__ inline unsigned add_halves(unsigned a, unsigned b) {
  unsigned sum;
  asm("add.rn.f16x2 %0, %1, %2;" : "=r"(sum) : "r"(a), "r"(b));
  return sum;
}
__device__ inline unsigned multiply_halves(unsigned a, unsigned b) {
  unsigned product;
  asm("mul.rn.f16x2 %0, %1, %2;" : "=r"(product) : "r"(a), "r"(b));
  return product;
}
__device__ inline unsigned fma_halves(unsigned a, unsigned b, unsigned c) {
  unsigned sum;
  asm("fma.rn.f16x2 %0, %1, %2, %3;" : "=r"(sum) : "r"(a), "r"(b), "r"(c));
  return sum;
}
#else
template <typename F>
unsigned for_both_halves(F f) {
  return unsigned{round_to_half<DType::kF16>(f(0))} | unsigned{round_to_half<DType::kF16>(f(16))} << 16;
}
inline float half_at(unsigned two, int shift) { return f16_to_f32(static_cast<uint16_t>(two >> shift)); }
inline unsigned add_halves(unsigned a, unsigned b) {
  return for_both_halves([&](int i) { return half_at(a, i) + half_at(b, i); });
}
inline unsigned multiply_halves(unsigned a, unsigned b) {
  return for_both_halves([&](int i) { return half_at(a, i) * half_at(b, i); });
}
inline unsigned fma_halves(unsigned a, unsigned b, unsigned c) {
  return for_both_halves([&](int i) { return std::fma(half_at(a, i), half_at(b, i), half_at(c, i)); });
}
#endif

__device__ inline unsigned in_both_halves(float x) { return round_to_halves<DType::kF16>(x, x); }

// Codes 2 * pair and the next of four, less the offset. A byte is the low end of an f16 from 1024 on.
template <typename Codes>
__device__ unsigned codes_of(int four, int pair) {
  constexpr unsigned kHigh = 0x64646464u, kSign = Codes::kSigned ? 0x80 : 0;
  constexpr unsigned kZero = (0xe400u + kSign + Codes::kOffset) * 0x10001u;  // -(1024 + sign + offset)
  const unsigned biased = static_cast<unsigned>(four) ^ kSign * 0x01010101u;
  return add_halves(__byte_perm(biased, kHigh, pair == 0 ? 0x4140u : 0x4342u), kZero);
}

// What two codes of a block are multiplied with, and what is added: times a power of two.
template <typename Codes>
class HalfScales {
 public:
  static constexpr bool kHasScales = Codes::Scales::kHasSuperblocks;

  __device__ HalfScales(const typename Codes::Scales& scales, float power) : scales_(scales), power_(power) {
    if constexpr (kHasScales) d_ = in_both_halves(scales.factor() * unit());
  }

  // For the scale group g of block b, both of a segment.
  __device__ void choose(int b, int g) {
    if constexpr (kHasScales)
      scale_ = in_both_halves(scales_.scale_code(g));
    else
      d_ = in_both_halves(scales_.scale(g) * unit());
    if constexpr (Codes::Block::kHasMinimum) minimum_ = in_both_halves(scales_.minimum(b) * power_);
  }
  __device__ unsigned weights(unsigned codes) const {
    if constexpr (kHasScales) codes = multiply_halves(codes, scale_);
    if constexpr (Codes::Block::kHasMinimum) return fma_halves(codes, d_, minimum_);
    return multiply_halves(codes, d_);
  }

 private:
  __device__ float unit() const { return power_ / static_cast<float>(1 << Codes::kShift); }

  const typename Codes::Scales scales_;
  const float power_;
  unsigned d_ = 0, scale_ = 0, minimum_ = 0;
};

}  // namespace llorch::cuda
