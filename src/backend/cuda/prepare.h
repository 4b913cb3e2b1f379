// The rows that a Linear reads, made on the fly by whoever needs them: plain, normalized, or gated; and their int16
// blocks. For kernels.
#pragma once

#include "backend/cuda/device_code.h"
#include "backend/cuda/kernels.h"
#include "base/exp.h"

namespace llorch::cuda {

// 1 / sqrt(mean of squares + eps) of one row; a whole warp asks. The loads do not wait for the sums.
__device__ inline float inverse_norm(const InputRows& in, int row) {
  const float* x = in.x + size_t(row) * in.stride;
  float partial = 0.0f;
#pragma unroll 16
  for (int k = lane_id(); k < in.cols; k += kWarp) partial = __fmaf_rn(x[k], x[k], partial);
  const float mean = __fdiv_rn(tree_sum(partial), static_cast<float>(in.cols));
  return __fdiv_rn(1.0f, __fsqrt_rn(__fadd_rn(mean, in.eps)));
}

// Element k of a row; `inverse` is inverse_norm() where the rows are normalized.
__device__ inline float prepared(const InputRows& in, int row, int k, float inverse) {
  const float* x = in.x + size_t(row) * in.stride;
  if (in.prepare == Prepare::kRmsNorm) return __fmul_rn(__fmul_rn(x[k], inverse), in.norm_weight[k]);
  if (in.prepare == Prepare::kGatedAct) return __fmul_rn(silu_f32(x[k]), x[in.cols + k]);
  return x[k];
}

// The int16 block of a warp's 32 values: each lane's integer, and the scale that all share.
struct Quantized {
  float d;
  int q;
};
__device__ inline Quantized quantize(float x) {
  const unsigned largest = integer_max(__float_as_uint(x) & 0x7fffffffu);  // infinity and NaN order last
  if (largest >= 0x7f800000u) return {__uint_as_float(0x7fc00000u), 0};
  if (largest < 0x1f800000u) return {0.0f, 0};  // 2^-64
  const float d = __fdiv_rn(__uint_as_float(largest), 32767.0f);
  return {d, __float2int_rn(__fdiv_rn(x, d))};
}

}  // namespace llorch::cuda
