// What a Linear's input is made of: plain, normalized or gated rows, and their int16 blocks. For kernels.
#pragma once

#include "backend/cuda/device_code.h"
#include "backend/cuda/kernels.h"
#include "base/exp.h"

namespace llorch::cuda {

// 1 / sqrt(mean of squares + eps) of a row [cols], by a warp. The sums are 32 chains of dependent operations; the row
// should be in shared memory or on its way: 32 of a lane's elements are asked for at once, and without a test where
// there are so many, which would take longer than their sum.
__device__ inline float inverse_norm(const float* x, int cols, float eps) {
  constexpr int kAtOnce = 32;
  float partial = 0.0f;
  const float* at = x + lane_id();
  int left = cols;
  float values[kAtOnce];
  for (; left >= kAtOnce * kWarp; left -= kAtOnce * kWarp, at += kAtOnce * kWarp) {
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) values[i] = at[i * kWarp];
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) partial = __fmaf_rn(values[i], values[i], partial);
  }
  if (left > 0) {
    left -= lane_id();
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) values[i] = i * kWarp < left ? at[i * kWarp] : 0.0f;
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i)
      if (i * kWarp < left) partial = __fmaf_rn(values[i], values[i], partial);
  }
  const float mean = __fdiv_rn(tree_sum(partial), static_cast<float>(cols));
  return __frcp_rn(__fsqrt_rn(__fadd_rn(mean, eps)));  // as a division, and shorter
}

__device__ inline float normalized(float x, float inverse, float weight) {
  return __fmul_rn(__fmul_rn(x, inverse), weight);
}
__device__ inline float gated(float gate, float up) { return __fmul_rn(silu_f32(gate), up); }

// x / y rounded to nearest even, given r = 1 / y but for its last bit, where nothing underflows or overflows: the first
// correction makes q one of the two neighbours of the quotient, the second is right by Markstein's theorem (P.
// Markstein, "Computation of elementary functions on the IBM RISC System/6000 processor", 1990). No branch, as in a
// division of the language, so several of them go side by side.
__device__ inline float divide_by_inverse(float x, float y, float r) {
  float q = __fmul_rn(x, r);
  q = __fmaf_rn(__fmaf_rn(-y, q, x), r, q);
  return __fmaf_rn(__fmaf_rn(-y, q, x), r, q);
}

// A warp's 256 values of a row, a lane's of each block of 32.
inline constexpr int kOfLane = kSegment / kWarp;
using LaneValues = float[kOfLane];

// y = gated(gate, up), side by side, which one after another would take a microsecond and more.
__device__ inline void gate(const LaneValues& gate, const LaneValues& up, LaneValues& y) {
  bool all_are_ordinary = true;
#pragma unroll
  for (int i = 0; i < kOfLane; ++i) {
    const float below = __fadd_rn(1.0f, exp_f32(-gate[i]));
    const float r = __fdividef(1.0f, below);
    const float inverse = __fmaf_rn(__fmaf_rn(-below, r, 1.0f), r, r);
    y[i] = __fmul_rn(divide_by_inverse(gate[i], below, inverse), up[i]);
    const float size = fabsf(gate[i]);
    all_are_ordinary = all_are_ordinary && size >= 0x1p-100f && size <= 64.0f;
  }
  if (all_are_ordinary) return;
#pragma unroll  // a loop would need its arrays in memory
  for (int i = 0; i < kOfLane; ++i) y[i] = gated(gate[i], up[i]);
}

// The int16 blocks of a warp's 256 values.
struct Quantized {
  int q[kOfLane];  // of each block, the lane's
  float d;         // scale of block lane_id() % 8
  int32_t sum;     // of that block's 32 integers
};
// Magnitudes as bits: from kSmall = 2^-64 on and below infinity a block has integers other than 0.
inline constexpr unsigned kInfinity = 0x7f800000u, kSmall = 0x1f800000u;
__device__ inline float scale_of(unsigned largest, float d) {
  return largest < kSmall ? 0.0f : largest < kInfinity ? d : __uint_as_float(0x7fc00000u);
}

// The scales are made side by side, a lane each. Where x / d is so small that its quotient may not be exact, it rounds
// to 0 anyway.
__device__ inline Quantized quantize(const LaneValues& x) {
  unsigned largest[kOfLane], mine = 0;
#pragma unroll
  for (int b = 0; b < kOfLane; ++b) {
    const unsigned of_block = integer_max(__float_as_uint(x[b]) & 0x7fffffffu);  // infinity and NaN order last
    if (lane_id() % kOfLane == b) mine = of_block;  // not largest[b]: that becomes a look-up in memory
    largest[b] = of_block;
  }
  Quantized out;
  const float d = divide_by_inverse(__uint_as_float(mine), 32767.0f, 1.0f / 32767.0f), r = __frcp_rn(d);
  out.d = scale_of(mine, d);
  out.sum = 0;
#pragma unroll
  for (int b = 0; b < kOfLane; ++b) {
    const int q = __float2int_rn(divide_by_inverse(x[b], __shfl_sync(kAllLanes, d, b), __shfl_sync(kAllLanes, r, b)));
    out.q[b] = largest[b] >= kSmall && largest[b] < kInfinity ? q : 0;
    const int32_t sum = integer_sum(out.q[b]);
    if (lane_id() % kOfLane == b) out.sum = sum;
  }
  return out;
}

// A warp's values of a row from k0 on, n of them; 0 behind. `inverse` is inverse_norm() where the rows are normalized.
__device__ inline void prepare(const InputRows& in, int row, int k0, int n, float inverse, LaneValues& y) {
  const float* x = in.x + size_t(row) * in.stride + k0;
  LaneValues first, second = {};
#pragma unroll
  for (int i = 0; i < kOfLane; ++i) {
    const int k = i * kWarp + lane_id();
    first[i] = k < n ? x[k] : 0.0f;
    if (in.prepare == Prepare::kRmsNorm) second[i] = k < n ? in.norm_weight[k0 + k] : 0.0f;
    if (in.prepare == Prepare::kGatedAct) second[i] = k < n ? x[in.cols + k] : 0.0f;
  }
  if (in.prepare == Prepare::kGatedAct) return gate(first, second, y);
#pragma unroll
  for (int i = 0; i < kOfLane; ++i)
    y[i] = in.prepare == Prepare::kRmsNorm ? normalized(first[i], inverse, second[i]) : first[i];
}

// One block of 32 by a warp, lane by lane, to block `at` of packed rows.
__device__ inline void pack_block(float x, const PackedRows& out, size_t at) {
  const unsigned largest = integer_max(__float_as_uint(x) & 0x7fffffffu);
  const float d = divide_by_inverse(__uint_as_float(largest), 32767.0f, 1.0f / 32767.0f);
  const int rounded = __float2int_rn(divide_by_inverse(x, d, __frcp_rn(d)));
  const int q = largest >= kSmall && largest < kInfinity ? rounded : 0, sum = integer_sum(q);
  out.q[at * kQuantBlock + lane_id()] = static_cast<int16_t>(q);
  if (lane_id() != 0) return;
  out.d[at] = scale_of(largest, d);
  out.sums[at] = sum;
}

}  // namespace llorch::cuda
