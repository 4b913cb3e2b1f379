// What a Linear's input is made of: plain, normalized or gated rows, and their int16 blocks. For kernels.
#pragma once

#include "backend/cuda/device_code.h"
#include "backend/cuda/kernels.h"
#include "base/exp.h"

namespace llorch::cuda {

// 1 / sqrt(mean of squares + eps) of a row [cols], by a warp. The sums are 32 chains of dependent operations; the row
// should be in shared memory or on its way: 32 of a lane's elements are asked for at once.
__device__ inline float inverse_norm(const float* x, int cols, float eps) {
  constexpr int kAtOnce = 32;
  float partial = 0.0f;
  for (int k = lane_id(); k < cols; k += kAtOnce * kWarp) {
    float values[kAtOnce];
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) values[i] = k + i * kWarp < cols ? x[k + i * kWarp] : 0.0f;
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i)
      if (k + i * kWarp < cols) partial = __fmaf_rn(values[i], values[i], partial);
  }
  const float mean = __fdiv_rn(tree_sum(partial), static_cast<float>(cols));
  return __fdiv_rn(1.0f, __fsqrt_rn(__fadd_rn(mean, eps)));
}

__device__ inline float normalized(float x, float inverse, float weight) {
  return __fmul_rn(__fmul_rn(x, inverse), weight);
}
__device__ inline float gated(float gate, float up) { return __fmul_rn(silu_f32(gate), up); }

// Element k of a row; `inverse` is inverse_norm() where the rows are normalized.
__device__ inline float prepared(const InputRows& in, int row, int k, float inverse) {
  const float* x = in.x + size_t(row) * in.stride;
  if (in.prepare == Prepare::kRmsNorm) return normalized(x[k], inverse, in.norm_weight[k]);
  if (in.prepare == Prepare::kGatedAct) return gated(x[k], x[in.cols + k]);
  return x[k];
}

// x / y rounded to nearest even, given r = 1 / y rounded so, where nothing underflows or overflows: the first
// correction makes q one of the two neighbours of the quotient, the second is right by Markstein's theorem (P.
// Markstein, "Computation of elementary functions on the IBM RISC System/6000 processor", 1990). No branch, so several
// of them go side by side.
__device__ inline float divide_by_inverse(float x, float y, float r) {
  float q = __fmul_rn(x, r);
  q = __fmaf_rn(__fmaf_rn(-y, q, x), r, q);
  return __fmaf_rn(__fmaf_rn(-y, q, x), r, q);
}

// The int16 block of a warp's 32 values: each lane's integer, and the scale that all share. Where x / d is so small
// that its quotient may not be exact, it rounds to 0 anyway.
struct Quantized {
  float d;
  int q;
};
__device__ inline Quantized quantize(float x) {
  const unsigned largest = integer_max(__float_as_uint(x) & 0x7fffffffu);  // infinity and NaN order last
  const float d = divide_by_inverse(__uint_as_float(largest), 32767.0f, 1.0f / 32767.0f);
  const int q = __float2int_rn(divide_by_inverse(x, d, __frcp_rn(d)));
  const bool is_finite = largest < 0x7f800000u, is_zero = largest < 0x1f800000u;  // 2^-64
  return {is_zero ? 0.0f : is_finite ? d : __uint_as_float(0x7fc00000u), is_finite && !is_zero ? q : 0};
}

}  // namespace llorch::cuda
