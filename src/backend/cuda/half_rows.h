// Rounding to 16 bits, and the powers of two that keep rows inside f16's range. For kernels.
#pragma once

#if !defined(__CUDACC__)
#include <vector>
#endif

#include "backend/cuda/device_code.h"
#include "tensor/dtype.h"

namespace llorch::cuda {

// Nearest even; infinity and NaN stay.
template <DType kType>
__device__ uint16_t round_to_half(float x) {
  if constexpr (kType == DType::kBF16) {
    return f32_to_bf16(x);
  } else {
#if defined(__CUDA_ARCH__)
    uint16_t h;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(h) : "f"(x));
    return h;
#else
    return std::isinf(x) ? static_cast<uint16_t>(x < 0 ? 0xfc00u : 0x7c00u) : f32_to_f16_saturate(x);
#endif
  }
}

#if !defined(__CUDACC__)
// Exact, by a table: emulated products are made of it.
inline float widen_half(DType type, uint16_t bits) {
  if (type == DType::kBF16) return bf16_to_f32(bits);
  static const std::vector<float> all = [] {
    std::vector<float> floats(1 << 16);
    for (unsigned i = 0; i < floats.size(); ++i) floats[i] = f16_to_f32(static_cast<uint16_t>(i));
    return floats;
  }();
  return all[bits];
}
#endif

// Two, the first in the low half of a word.
template <DType kType>
__device__ unsigned round_to_halves(float low, float high) {
#if defined(__CUDA_ARCH__)
  unsigned word;
  if constexpr (kType == DType::kBF16)
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(high), "f"(low));
  else
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(high), "f"(low));
  return word;
#else
  return round_to_half<kType>(low) | unsigned{round_to_half<kType>(high)} << 16;
#endif
}

// x as the sum of two f16, 22 bits in all: its rounding, and the rounding of what that leaves.
struct TwoHalves {
  uint16_t rounded, left;
};
__device__ inline TwoHalves split_to_halves(float x) {
  const uint16_t rounded = round_to_half<DType::kF16>(x);
  const float left = x - widen_f16(rounded);  // NaN of infinity, which leaves nothing
  return {rounded, fabsf(x) < INFINITY ? round_to_half<DType::kF16>(left) : uint16_t{0}};
}

// x / (1 + e^-x) to about 2^-21.
__device__ inline float quick_silu(float x) {
#if defined(__CUDA_ARCH__)
  return __fdividef(x, 1.0f + __expf(-x));
#else
  return x / (1.0f + std::exp(-x));
#endif
}

// 2^x to about 2^-22; 0 for -infinity.
__device__ inline float quick_exp2(float x) {
#if defined(__CUDA_ARCH__)
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
#else
  return std::exp2(x);
#endif
}

// The least e with |x| < 2^e, of a normal x; -126 of smaller ones, 129 of infinity and NaN.
__device__ inline int exponent_above(float x) {
  const int e = static_cast<int>(__float_as_uint(x) >> 23 & 255u) - 126;
  return e < -126 ? -126 : e;
}

// 2^e, with e brought into the range of normal numbers whose inverse is one, too.
__device__ inline float power_of_two(int e) {
  const int inside = e < -126 ? -126 : e > 126 ? 126 : e;
  return __uint_as_float(static_cast<unsigned>(inside + 127) << 23);
}

__device__ inline float inverse_of_power(float power) { return __uint_as_float((254u << 23) - __float_as_uint(power)); }

// What a row is divided by whose elements are below 2^e, so that they end below 2^15.
__device__ inline float half_scale(int e) { return power_of_two(e - 15); }

}  // namespace llorch::cuda
