// Rows of activations as f16 or bf16 for the tensor cores. A block has eight rows, a warp each: one pass for the norm
// and the largest magnitudes, one for the elements, which meet in shared memory so that eight rows leave side by side.
//
// A row's power of two comes from a bound of its elements (the product of what they are products of): f16 has 29
// binades of full precision, so a bound that is too large by some costs nothing.
#include "backend/cuda/codes.h"
#include "backend/cuda/half_rows.h"
#include "backend/cuda/launch.h"
#include "backend/cuda/prepare.h"
#include "backend/cuda/tensor_kernels.h"

namespace llorch::cuda {
namespace {

constexpr int kRows = 8, kThreads = kRows * kWarp;
constexpr int kPaddedUnit = kRows + 1;  // uint4s between units in shared memory, so that banks differ

struct RowSums {
  float inverse = 0.0f;  // of the root mean square, where the row is normalized
  int bound = 0;         // elements are below 2^bound
};

__device__ unsigned larger(unsigned largest, float x) {
  const unsigned magnitude = __float_as_uint(x) & 0x7fffffffu;
  return magnitude > largest ? magnitude : largest;
}

// Eight neighbouring elements, of which a lane asks at once.
struct Eight {
  float4 low, high;
  __device__ explicit Eight(const float* from)
      : low(reinterpret_cast<const float4*>(from)[0]), high(reinterpret_cast<const float4*>(from)[1]) {}
  template <typename F>
  __device__ void each(F f) const {
    f(0, low.x), f(1, low.y), f(2, low.z), f(3, low.w), f(4, high.x), f(5, high.y), f(6, high.z), f(7, high.w);
  }
};

// By a warp.
__device__ RowSums sum_row(const InputRows& in, int row) {
  const float* x = in.x + size_t(row) * in.stride;
  const float* other = in.prepare == Prepare::kRmsNorm ? in.norm_weight : x + in.cols;
  unsigned first = 0, second = 0;  // largest magnitudes of the two factors
  float squares = 0.0f;
#pragma unroll 4
  for (int k = lane_id() * 8; k < in.cols; k += kWarp * 8) {
    Eight(x + k).each([&](int, float v) {
      first = larger(first, v);
      squares = __fmaf_rn(v, v, squares);
    });
    if (in.prepare != Prepare::kNone) Eight(other + k).each([&](int, float v) { second = larger(second, v); });
  }
  RowSums sums;
  sums.bound = exponent_above(__uint_as_float(integer_max(first)));
  if (in.prepare == Prepare::kNone) return sums;
  sums.bound += exponent_above(__uint_as_float(integer_max(second)));
  if (in.prepare == Prepare::kGatedAct) return sums;
  const float mean = __fdiv_rn(tree_sum(squares), static_cast<float>(in.cols));
  sums.inverse = __fdiv_rn(1.0f, __fsqrt_rn(__fadd_rn(mean, in.eps)));
  sums.bound += exponent_above(sums.inverse);
  return sums;
}

template <DType kType>
__device__ uint4 make_unit(const InputRows& in, int row, int k, const RowSums& sums, float inverse_scale,
                           float& squares) {
  unsigned words[4] = {0, 0, 0, 0};
  if (k >= in.cols) return make_uint4(0, 0, 0, 0);
  const float* x = in.x + size_t(row) * in.stride + k;
  const auto add = [&](int i, float v) {
    squares = __fmaf_rn(v, v, squares);
    words[i / 2] |= static_cast<unsigned>(round_to_half<kType>(__fmul_rn(v, inverse_scale))) << i % 2 * 16;
  };
  if (in.prepare == Prepare::kNone) {
    Eight(x).each(add);
  } else {
    float second[8];
    Eight(in.prepare == Prepare::kRmsNorm ? in.norm_weight + k : x + in.cols).each([&](int i, float v) {
      second[i] = v;
    });
    Eight(x).each([&](int i, float v) {
      add(i, __fmul_rn(in.prepare == Prepare::kRmsNorm ? __fmul_rn(v, sums.inverse) : quick_silu(v), second[i]));
    });
  }
  return make_uint4(words[0], words[1], words[2], words[3]);
}

template <DType kType>
__global__ void __launch_bounds__(kThreads) half_rows_kernel(InputRows in, int n, HalfRows out, GatedScale gated) {
  wait_for_inputs();
  auto* const shared = reinterpret_cast<uint4*>(shared_memory());
  const int first = static_cast<int>(blockIdx.x) * kRows;
  const int row = first + warp_id() < n ? first + warp_id() : n - 1;  // the last one again
  const RowSums sums = sum_row(in, row);
  const float scale = kType == DType::kBF16 ? 1.0f : half_scale(sums.bound);
  const float inverse_scale = inverse_of_power(scale);
  uint4* const tile = out.units + size_t(first / out.tile_rows) * out.n_units * out.tile_rows + first % out.tile_rows;
  float squares = 0.0f;
  for (int u = 0; u < out.n_units; u += kWarp) {
    if (u + lane_id() < out.n_units)
      shared[lane_id() * kPaddedUnit + warp_id()] =
          make_unit<kType>(in, row, (u + lane_id()) * 8, sums, inverse_scale, squares);
    __syncthreads();
    const int t = static_cast<int>(threadIdx.x), unit = u + t / kRows;
    if (unit < out.n_units)
      tile[size_t(unit) * out.tile_rows + t % kRows] = shared[t / kRows * kPaddedUnit + t % kRows];
    __syncthreads();
  }
  if (gated.scale != nullptr) squares = tree_sum(squares);
  if (lane_id() != 0 || first + warp_id() >= n) return;
  out.scale[row] = scale;
  // Of silu(gate) * up: each is at most the row's norm times that of a weight row. One more binade for their roundings.
  if (gated.scale != nullptr)
    gated.scale[row] =
        kType == DType::kBF16 ? 1.0f : half_scale(exponent_above(squares) + exponent_above(gated.weights) + 1);
}

// A block is a group, a thread a row.
template <DType kType>
__global__ void row_squares_kernel(MatrixView w, float* out) {
  float sum = 0.0f;
  for (int u = 0; u < w.units_per_row; ++u) {
    float values[8];
    FloatCodes<kType>::widen(w.units[(size_t{blockIdx.x} * w.units_per_row + u) * kGroup + threadIdx.x], values);
#pragma unroll
    for (int i = 0; i < 8; ++i) sum = __fmaf_rn(values[i], values[i], sum);
  }
  out[size_t{blockIdx.x} * kGroup + threadIdx.x] = sum;
}

}  // namespace

void half_rows(const KernelStream& stream, DType dtype, const InputRows& in, int32_t n, const HalfRows& out,
               const GatedScale& gated) {
  const auto kernel = dtype == DType::kBF16 ? half_rows_kernel<DType::kBF16> : half_rows_kernel<DType::kF16>;
  launch(stream, {dim3(static_cast<unsigned>(divide_up(n, kRows))), kThreads, kWarp * kPaddedUnit * sizeof(uint4)},
         kernel, in, n, out, gated);
}

void row_squares(const KernelStream& stream, DType dtype, const MatrixView& w, float* out) {
  const auto kernel = dtype == DType::kBF16 ? row_squares_kernel<DType::kBF16> : row_squares_kernel<DType::kF16>;
  launch(stream, {dim3(static_cast<unsigned>(divide_up(w.rows, kGroup))), kGroup}, kernel, w, out);
}

}  // namespace llorch::cuda
