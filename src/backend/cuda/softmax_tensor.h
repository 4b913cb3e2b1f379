// Running softmax of scores that lie as a product on tensor cores leaves them (mma.h): a warp has 16 queries, a thread
// parts of two, eight rows apart. For kernels.
#pragma once

#include "backend/cuda/device_code.h"
#include "backend/cuda/half_rows.h"
#include "backend/cuda/kernels.h"

namespace llorch::cuda {

inline constexpr float kLog2e = 1.44269504088896341f;

// Of a thread's two queries.
struct Softmax {
  float m[2] = {-INFINITY, -INFINITY};  // of scores
  float l[2] = {0.0f, 0.0f};            // of this thread's positions
};

__device__ inline float quad_max(float x) {
  for (int by = 1; by <= 2; by *= 2) {
    const float other = __shfl_xor_sync(kAllLanes, x, by);
    x = fmaxf(x, other);
  }
  return x;
}

// Scores become weights, in place; gives what the sums so far are multiplied with. scale: of scores, to powers of two;
// above 0. The largest score so far counts as it was until it has grown by 2^8, so that sums are seldom multiplied:
// weights are below 2^8.
template <int kQueriesOfThread = 2, int kTiles>
__device__ void weigh(float (&s)[kTiles][4], const float (&scale)[2], Softmax& softmax, float (&factor)[2]) {
#pragma unroll
  for (int half = 0; half < kQueriesOfThread; ++half) {
    float largest = softmax.m[half];
#pragma unroll
    for (int n = 0; n < kTiles; ++n) {
      largest = fmaxf(largest, s[n][2 * half]);
      largest = fmaxf(largest, s[n][2 * half + 1]);
    }
    largest = quad_max(largest);
    if (!((largest - softmax.m[half]) * scale[half] > 8.0f)) largest = softmax.m[half];
    const float base = largest == -INFINITY ? 0.0f : -largest * scale[half];  // it sees nothing yet
    factor[half] = quick_exp2(__fmaf_rn(softmax.m[half], scale[half], base));
    softmax.m[half] = largest;
    float sum = 0.0f;
#pragma unroll
    for (int n = 0; n < kTiles; ++n)
#pragma unroll
      for (int i = 2 * half; i < 2 * half + 2; ++i) {
        s[n][i] = quick_exp2(__fmaf_rn(s[n][i], scale[half], base));
        sum += s[n][i];
      }
    softmax.l[half] = __fmaf_rn(softmax.l[half], factor[half], sum);
  }
}

// The sum of a value over the four lanes that have parts of the same queries.
__device__ inline float quad_sum(float x) {
  x += __shfl_xor_sync(kAllLanes, x, 1);
  return x + __shfl_xor_sync(kAllLanes, x, 2);
}

// Where attention's outputs go that a product reads next, two neighbouring ones at a time. They are means of f16
// values, so below 2^16: rows of f16 are halved, whatever they hold, and have full precision from 2^-13 on, where those
// values have it from 2^-14 on.
__device__ inline float half_output_scale(const AttentionArgs& a) { return a.half_type == DType::kF16 ? 2.0f : 1.0f; }

__device__ inline void put_halves(const AttentionArgs& a, uint32_t row, int column, float first, float second) {
  const auto tile_rows = static_cast<uint32_t>(a.half_y.tile_rows);
  const size_t unit = size_t{row / tile_rows} * static_cast<size_t>(a.half_y.n_units) + static_cast<size_t>(column / 8);
  auto* words = reinterpret_cast<unsigned*>(a.half_y.units + unit * tile_rows + row % tile_rows);
  words[column % 8 / 2] = a.half_type == DType::kF16
                              ? round_to_halves<DType::kF16>(__fmul_rn(first, 0.5f), __fmul_rn(second, 0.5f))
                              : round_to_halves<DType::kBF16>(first, second);
}

}  // namespace llorch::cuda
