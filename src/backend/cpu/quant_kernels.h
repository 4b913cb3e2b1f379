// Linear with block-quantized weights, written once over sixteen lanes: exact integer sums of weight codes times int16
// activations, then one fma for each scale group, and one for its minimum.
//
// Included by one source file for each instruction set (see linear_kernels.h).
#pragma once

#include <utility>

#include "backend/cpu/linear_kernels.h"
#include "backend/cpu/quant_codes.h"

namespace llorch::cpu {
namespace {

inline constexpr int kSegmentBlocks = kSegment / kQuantBlock;

template <int... kIndex, typename F>
[[gnu::always_inline]] inline void for_each_index(std::integer_sequence<int, kIndex...>, F f) {
  (f(std::integral_constant<int, kIndex>{}), ...);
}

// One block of 32 activations of the kRows rows of a tile: [16][kRows] pairs, [kRows] of the others.
struct ActivationBlock {
  const int32_t* pairs;
  const float* scales;
  const int32_t *sums, *first_sums;
};

// The sum of the integers of scale group g (of kGroups) of a block.
template <int kGroups>
[[gnu::always_inline]] inline int32_t sum_of_group(const ActivationBlock& x, int g, int r) {
  if constexpr (kGroups == 1) return x.sums[r];
  return g == 0 ? x.first_sums[r] : x.sums[r] - x.first_sums[r];
}

// acc += the scale groups of 32 columns in ascending order; `block`: which 32 of the record.
template <typename L, DType kType, int kRows, typename Scales>
[[gnu::always_inline]] inline void add_block(const std::byte* planes, const Scales& scales, int block,
                                             const ActivationBlock& x, typename L::F (&acc)[kRows]) {
  using F = typename L::F;
  using I = typename L::I;
  using P = Placed<kType>;
  constexpr int kGroups = P::kScaleGroups, kPairsOfGroup = kPairs / kGroups;
  const Codes<L, P::kBits> codes{planes};
  for_each_index(
      std::make_integer_sequence<int, kGroups>(), [&](auto g) __attribute__((always_inline)) {
        I products[kRows];
#pragma GCC unroll 16
        for (int r = 0; r < kRows; ++r)
          products[r] = P::kOffset == 0 ? L::zero_i() : L::set1_i(-P::kOffset * sum_of_group<kGroups>(x, g(), r));
        for_each_index(
            std::make_integer_sequence<int, kPairsOfGroup>(), [&](auto i) __attribute__((always_inline)) {
              constexpr int p = g() * kPairsOfGroup + i();
              const I weight = codes.template pair<p>();
#pragma GCC unroll 16
              for (int r = 0; r < kRows; ++r)
                products[r] = L::dot_pairs(products[r], weight, L::set1_i(x.pairs[p * kRows + r]));
            });
        const F scale = scales.scale(block * kGroups + g());
#pragma GCC unroll 16
        for (int r = 0; r < kRows; ++r)
          acc[r] = L::fma(L::to_float(products[r]), L::mul(scale, L::set1(x.scales[r])), acc[r]);
        if constexpr (P::kMinimum) {
          const F minimum = scales.minimum(block * kGroups + g());
#pragma GCC unroll 16
          for (int r = 0; r < kRows; ++r) {
            const F both = L::mul(minimum, L::set1(x.scales[r]));
            acc[r] = L::fma(both, L::set1(static_cast<float>(sum_of_group<kGroups>(x, g(), r))), acc[r]);
          }
        }
      });
}

// kRows activation rows x one weight group, all of K.
template <typename L, DType kType, int kRows>
void quant_tile(const LinearArgs& a, int group, int row) {
  using F = typename L::F;
  using P = Placed<kType>;
  const int n_blocks = a.w.cols / kQuantBlock;
  const std::byte* w = a.w.data + static_cast<size_t>(group) * a.w.data_stride;
  const auto* records =
      reinterpret_cast<const typename P::Scales*>(a.w.scales + static_cast<size_t>(group) * a.w.scale_stride);
  const size_t x_block = static_cast<size_t>(row) * n_blocks;
  F total[kRows];
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) total[r] = L::zero();
  for (int begin = 0; begin < n_blocks; begin += kSegmentBlocks) {
    const int end = begin + kSegmentBlocks < n_blocks ? begin + kSegmentBlocks : n_blocks;
    F acc[kRows];
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) acc[r] = L::zero();
    for (int first = begin; first < end; first += P::kRecordBlocks) {
      const RecordScales<L, typename P::Scales> scales(records[first / P::kRecordBlocks]);
      for (int i = 0; i < P::kRecordBlocks; ++i) {
        const int b = first + i;
        const std::byte* codes = w + static_cast<size_t>(b) * P::kCodeBytes;
        if constexpr (kRows == 1)
          for (size_t line = 0; line < P::kCodeBytes; line += 64) L::prefetch(codes + line + kPrefetchBytes);
        const size_t at = x_block + static_cast<size_t>(b) * kRows;
        add_block<L, kType>(codes, scales, i,
                            {a.x.pairs + at * kPairs, a.x.scales + at, a.x.sums + at, a.x.first_sums + at}, acc);
      }
    }
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) total[r] = L::add(total[r], acc[r]);
  }
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) store_outputs<L>(a, group, row + r, total[r]);
}

template <typename L, DType kType>
void quant_linear(const LinearArgs& a) {
  const int step = groups_in_cache(a);
  for (int first = a.first_group; first < a.last_group; first += step) {
    const int last = first + step < a.last_group ? first + step : a.last_group;
    for (int row = 0; row < a.n_rows;) {
      const int rows = largest_tile(a.n_rows - row, L::kQuantTile);
      dispatch_tile(rows, [&](auto n) {
        if constexpr (n() <= L::kQuantTile)
          for (int group = first; group < last; ++group) quant_tile<L, kType, n()>(a, group, row);
      });
      row += rows;
    }
  }
}

}  // namespace
}  // namespace llorch::cpu
