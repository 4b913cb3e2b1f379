// Rows of activations as f16 or bf16 for the tensor cores. A block has two rows, a half of its threads each: one pass
// for the norm and the largest magnitudes, one for the elements, which a thread keeps if it has one unit of eight.
// Threads of both rows write side by side: units of two rows are a sector of 32 bytes (16 bytes alone took 1.5 times as
// long).
//
// A row's power of two comes from a bound of its elements (the product of what they are products of): f16 has 29
// binades of full precision, so a bound that is too large by some costs nothing.
#include <type_traits>

#include "backend/cuda/half_rows.h"
#include "backend/cuda/launch.h"
#include "backend/cuda/prepare.h"
#include "backend/cuda/tensor_kernels.h"

namespace llorch::cuda {
namespace {

constexpr int kThreadsOfRow = 256;
constexpr int kManyRows = 512;  // from so many on a block has two

// kRows: of a block.
template <int kRows>
struct Shared {
  static constexpr int kWarps = kRows * kThreadsOfRow / kWarp;
  unsigned first[kRows][kWarps], second[kRows][kWarps];
  float squares[kRows][kWarps];
};

// Of a row, or of a part of it: largest magnitudes of the two factors of its elements, and the sum of squares of one.
struct Totals {
  unsigned first = 0, second = 0;
  float squares = 0.0f;

  // The row's, in a fixed order.
  template <int kRows>
  __device__ Totals of_row(Shared<kRows>& shared) const {
    Totals mine = *this;
#pragma unroll
    for (int by = kWarp / 2; by >= kRows; by /= 2) {
      const unsigned a = __shfl_xor_sync(kAllLanes, mine.first, by), b = __shfl_xor_sync(kAllLanes, mine.second, by);
      mine.first = a > mine.first ? a : mine.first;
      mine.second = b > mine.second ? b : mine.second;
      mine.squares = __fadd_rn(mine.squares, __shfl_xor_sync(kAllLanes, mine.squares, by));
    }
    __syncthreads();  // of the sums before
    if (lane_id() < kRows) {
      shared.first[lane_id()][warp_id()] = mine.first;
      shared.second[lane_id()][warp_id()] = mine.second;
      shared.squares[lane_id()][warp_id()] = mine.squares;
    }
    __syncthreads();
    Totals all;
    const int row = static_cast<int>(threadIdx.x) % kRows;
#pragma unroll
    for (int i = 0; i < Shared<kRows>::kWarps; ++i) {
      all.first = shared.first[row][i] > all.first ? shared.first[row][i] : all.first;
      all.second = shared.second[row][i] > all.second ? shared.second[row][i] : all.second;
      all.squares = __fadd_rn(all.squares, shared.squares[row][i]);
    }
    return all;
  }
};

__device__ unsigned larger(unsigned largest, float x) {
  const unsigned magnitude = __float_as_uint(x) & 0x7fffffffu;
  return magnitude > largest ? magnitude : largest;
}

// Eight neighbouring elements of a row, and what they are multiplied with.
template <Prepare kPrepare>
struct Eight {
  float x[8], other[8];

  __device__ Eight(const InputRows& in, int row, int k, const Shares& shares = {}, int n_rows = 0) {
    const float* from = in.x + size_t(row) * in.stride + k;
    load(from, x);
    if (shares.n > 1) add(shares, n_rows, in.stride, size_t(row) * in.stride + k, const_cast<float*>(from));
    if (kPrepare == Prepare::kRmsNorm) load(in.norm_weight + k, other);
    if (kPrepare == Prepare::kGatedAct) load(from + in.cols, other);
  }
  __device__ void add_to(Totals& totals) const {
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      totals.first = larger(totals.first, x[i]);
      if (kPrepare != Prepare::kNone) totals.second = larger(totals.second, other[i]);
      totals.squares = __fmaf_rn(x[i], x[i], totals.squares);
    }
  }
  // The elements as the row has them.
  __device__ void prepare(float inverse) {
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      if (kPrepare == Prepare::kRmsNorm) x[i] = __fmul_rn(__fmul_rn(x[i], inverse), other[i]);
      if (kPrepare == Prepare::kGatedAct) x[i] = __fmul_rn(quick_silu(x[i]), other[i]);
    }
  }

 private:
  // The shares in ascending order, then x; all of it back into x's memory.
  __device__ void add(const Shares& shares, int n_rows, int stride, size_t at, float* to) {
    const size_t step = size_t(n_rows) * stride;
    float sum[8], share[8];
    load(shares.sums + at, sum);
#pragma unroll 4
    for (int s = 1; s < shares.n; ++s) {
      load(shares.sums + s * step + at, share);
#pragma unroll
      for (int i = 0; i < 8; ++i) sum[i] = __fadd_rn(sum[i], share[i]);
    }
#pragma unroll
    for (int i = 0; i < 8; ++i) x[i] = __fadd_rn(x[i], sum[i]);
    reinterpret_cast<float4*>(to)[0] = make_float4(x[0], x[1], x[2], x[3]);
    reinterpret_cast<float4*>(to)[1] = make_float4(x[4], x[5], x[6], x[7]);
  }
  __device__ static void load(const float* from, float (&to)[8]) {
    const float4 low = reinterpret_cast<const float4*>(from)[0], high = reinterpret_cast<const float4*>(from)[1];
    to[0] = low.x, to[1] = low.y, to[2] = low.z, to[3] = low.w;
    to[4] = high.x, to[5] = high.y, to[6] = high.z, to[7] = high.w;
  }
};

template <DType kType, int kRows, Prepare kPrepare>
__global__ void __launch_bounds__(kRows* kThreadsOfRow, 1024 / (kRows * kThreadsOfRow))
    half_rows_kernel(InputRows in, int n_rows, HalfRows out, GatedScale gated, Shares shares) {
  wait_for_inputs();
  auto& shared = *reinterpret_cast<Shared<kRows>*>(shared_memory());
  const int own = static_cast<int>(blockIdx.x) * kRows + static_cast<int>(threadIdx.x) % kRows;
  const bool has_row = own < n_rows;
  const int row = has_row ? own : n_rows - 1, first = static_cast<int>(threadIdx.x) / kRows * 8;
  const bool has_any = has_row && first < in.cols;
  const int end = has_row ? in.cols : 0;  // a thread without a row only meets the others
  Eight<kPrepare> kept(in, row, has_any ? first : 0, has_any ? shares : Shares{}, n_rows);
  Totals totals;
  if (has_any) kept.add_to(totals);
  for (int k = first + kThreadsOfRow * 8; k < end; k += kThreadsOfRow * 8)
    Eight<kPrepare>(in, row, k, shares, n_rows).add_to(totals);
  totals = totals.of_row(shared);
  int bound = exponent_above(__uint_as_float(totals.first));  // elements are below 2^bound
  if (kPrepare != Prepare::kNone) bound += exponent_above(__uint_as_float(totals.second));
  float inverse = 0.0f;
  if (kPrepare == Prepare::kRmsNorm) {
    const float mean = __fdiv_rn(totals.squares, static_cast<float>(in.cols));
    inverse = __fdiv_rn(1.0f, __fsqrt_rn(__fadd_rn(mean, in.eps)));
    bound += exponent_above(inverse);
  }
  const float scale = kType == DType::kBF16 ? 1.0f : half_scale(bound), inverse_scale = inverse_of_power(scale);
  uint4* const units = out.units + size_t(row / out.tile_rows) * out.n_units * out.tile_rows + row % out.tile_rows;
  Totals made;
  for (int k = first; has_row && k < out.n_units * 8; k += kThreadsOfRow * 8) {
    unsigned words[4] = {0, 0, 0, 0};
    if (k < in.cols) {
      if (k != first) kept = Eight<kPrepare>(in, row, k);
      kept.prepare(inverse);
#pragma unroll
      for (int i = 0; i < 8; i += 2) {
        made.squares = __fmaf_rn(kept.x[i], kept.x[i], __fmaf_rn(kept.x[i + 1], kept.x[i + 1], made.squares));
        words[i / 2] =
            round_to_halves<kType>(__fmul_rn(kept.x[i], inverse_scale), __fmul_rn(kept.x[i + 1], inverse_scale));
      }
    }
    units[size_t(k / 8) * out.tile_rows] = make_uint4(words[0], words[1], words[2], words[3]);
  }
  if (gated.scale != nullptr) made = made.of_row(shared);
  if (static_cast<int>(threadIdx.x) >= kRows || !has_row) return;
  out.scale[row] = scale;
  // Of silu(gate) * up: each is at most the row's norm times that of a weight row. One more binade for their roundings.
  if (gated.scale != nullptr)
    gated.scale[row] =
        kType == DType::kBF16 ? 1.0f : half_scale(exponent_above(made.squares) + exponent_above(gated.weights) + 1);
}

template <DType kType, Prepare kPrepare>
void start(const KernelStream& stream, const InputRows& in, int32_t n, const HalfRows& out, const GatedScale& gated,
           const Shares& shares) {
  const auto with = [&](auto rows) {
    constexpr int kRows = decltype(rows)::value;
    launch(stream, {dim3(static_cast<unsigned>(divide_up(n, kRows))), kRows * kThreadsOfRow, sizeof(Shared<kRows>)},
           half_rows_kernel<kType, kRows, kPrepare>, in, n, out, gated, shares);
  };
  if (n < kManyRows) return with(std::integral_constant<int, 1>());
  with(std::integral_constant<int, 2>());
}

template <DType kType>
void choose_prepare(const KernelStream& stream, const InputRows& in, int32_t n, const HalfRows& out,
                    const GatedScale& gated, const Shares& shares) {
  if (in.prepare == Prepare::kRmsNorm) return start<kType, Prepare::kRmsNorm>(stream, in, n, out, gated, shares);
  if (in.prepare == Prepare::kGatedAct) return start<kType, Prepare::kGatedAct>(stream, in, n, out, gated, shares);
  start<kType, Prepare::kNone>(stream, in, n, out, gated, shares);
}

}  // namespace

void half_rows(const KernelStream& stream, DType dtype, const InputRows& in, int32_t n, const HalfRows& out,
               const GatedScale& gated, const Shares& shares) {
  if (dtype == DType::kBF16) return choose_prepare<DType::kBF16>(stream, in, n, out, gated, shares);
  choose_prepare<DType::kF16>(stream, in, n, out, gated, shares);
}

}  // namespace llorch::cuda
