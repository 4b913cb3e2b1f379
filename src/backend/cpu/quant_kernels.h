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
  constexpr int kChains = kRows <= 2 ? L::kDotChains : 1;
  const Codes<L, P::kBits> codes{planes};
  for_each_index(
      std::make_integer_sequence<int, kGroups>(), [&](auto g) __attribute__((always_inline)) {
        I products[kRows][kChains];
#pragma GCC unroll 16
        for (int r = 0; r < kRows; ++r) {
          products[r][0] = P::kOffset == 0 ? L::zero_i() : L::set1_i(-P::kOffset * sum_of_group<kGroups>(x, g(), r));
          for (int c = 1; c < kChains; ++c) products[r][c] = L::zero_i();
        }
        for_each_index(
            std::make_integer_sequence<int, kPairsOfGroup>(), [&](auto i) __attribute__((always_inline)) {
              constexpr int kPair = g() * kPairsOfGroup + i();
              const I weight = codes.template pair<kPair>();
#pragma GCC unroll 16
              for (int r = 0; r < kRows; ++r) {
                I& sum = products[r][kPair % kChains];
                sum = L::dot_pairs(sum, weight, L::set1_i(x.pairs[kPair * kRows + r]));
              }
            });
#pragma GCC unroll 16
        for (int r = 0; r < kRows; ++r)
          for (int c = 1; c < kChains; ++c) products[r][0] = L::add_i(products[r][0], products[r][c]);
        const F scale = scales.scale(block * kGroups + g());
#pragma GCC unroll 16
        for (int r = 0; r < kRows; ++r)
          acc[r] = L::fma(L::to_float(products[r][0]), L::mul(scale, L::set1(x.scales[r])), acc[r]);
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

// Asks for what a decoded row reads somewhat later: unpacking fills the window in which a core looks ahead by itself.
// Of 512 to 2048 bytes, 768 and 1024 read fastest on two Sapphire Rapids cores, q8_0 768.
inline constexpr size_t kQuantPrefetchBytes = 768;

template <typename L, DType kType>
[[gnu::always_inline]] inline void prefetch_codes(const std::byte* codes) {
  for (size_t line = 0; line < Placed<kType>::kCodeBytes; line += 64) L::prefetch(codes + line + kQuantPrefetchBytes);
}
template <typename L, DType kType>
[[gnu::always_inline]] inline void prefetch_scales(const typename Placed<kType>::Scales* record) {
  using P = Placed<kType>;
  constexpr size_t kRecords = (kQuantPrefetchBytes / P::kCodeBytes + P::kRecordBlocks - 1) / P::kRecordBlocks;
  const auto* p = reinterpret_cast<const std::byte*>(record + kRecords);
  for (size_t line = 0; line < sizeof(*record); line += 64) L::prefetch(p + line);
}

// kRows activation rows x kGroups weight groups, `apart` from each other, all of K.
template <typename L, DType kType, int kRows, int kGroups>
void quant_tile(const LinearArgs& a, int group, int apart, int row) {
  using F = typename L::F;
  using P = Placed<kType>;
  const int n_blocks = a.w.cols / kQuantBlock;
  const std::byte* w[kGroups];
  const typename P::Scales* records[kGroups];
  F total[kGroups][kRows];
#pragma GCC unroll 16
  for (int g = 0; g < kGroups; ++g) {
    const size_t at = static_cast<size_t>(group) + static_cast<size_t>(g) * static_cast<size_t>(apart);
    w[g] = a.w.data + at * a.w.data_stride;
    records[g] = reinterpret_cast<const typename P::Scales*>(a.w.scales + at * a.w.scale_stride);
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) total[g][r] = L::zero();
  }
  const size_t x_block = static_cast<size_t>(row) * n_blocks;
  for (int begin = 0; begin < n_blocks; begin += kSegmentBlocks) {
    const int end = begin + kSegmentBlocks < n_blocks ? begin + kSegmentBlocks : n_blocks;
    F acc[kGroups][kRows];
#pragma GCC unroll 16
    for (int g = 0; g < kGroups; ++g)
#pragma GCC unroll 16
      for (int r = 0; r < kRows; ++r) acc[g][r] = L::zero();
    for (int first = begin; first < end; first += P::kRecordBlocks) {
#pragma GCC unroll 16
      for (int g = 0; g < kGroups; ++g) {
        const typename P::Scales* record = records[g] + first / P::kRecordBlocks;
        if constexpr (kRows == 1) prefetch_scales<L, kType>(record);
        const RecordScales<L, typename P::Scales> scales(*record);
        for (int i = 0; i < P::kRecordBlocks; ++i) {
          const int b = first + i;
          const std::byte* codes = w[g] + static_cast<size_t>(b) * P::kCodeBytes;
          if constexpr (kRows == 1) prefetch_codes<L, kType>(codes);
          const size_t at = x_block + static_cast<size_t>(b) * kRows;
          add_block<L, kType>(codes, scales, i,
                              {a.x.pairs + at * kPairs, a.x.scales + at, a.x.sums + at, a.x.first_sums + at}, acc[g]);
        }
      }
    }
#pragma GCC unroll 16
    for (int g = 0; g < kGroups; ++g)
#pragma GCC unroll 16
      for (int r = 0; r < kRows; ++r) total[g][r] = L::add(total[g][r], acc[g][r]);
  }
#pragma GCC unroll 16
  for (int g = 0; g < kGroups; ++g)
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) store_outputs<L>(a, group + g * apart, row + r, total[g][r]);
}

template <typename L, DType kType, int kRows>
void quant_tiles(const LinearArgs& a, int first, int last, int row) {
  int group = first;
  if constexpr (kRows == 1) {
    // Two runs of groups side by side, the halves of the task: one stream of addresses leaves a sixth of a core's share
    // of the bandwidth unused, and two that jump over each other begin slowly at each group.
    const int half = (last - first) / 2;
    for (; group < first + half; ++group) quant_tile<L, kType, 1, 2>(a, group, half, row);
    group += half;
  }
  for (; group < last; ++group) quant_tile<L, kType, kRows, 1>(a, group, 0, row);
}

template <typename L, DType kType>
void quant_linear(const LinearArgs& a) {
  const int step = groups_in_cache(a);
  for (int first = a.first_group; first < a.last_group; first += step) {
    const int last = first + step < a.last_group ? first + step : a.last_group;
    for (int row = 0; row < a.n_rows;) {
      const int rows = largest_tile(a.n_rows - row, L::kQuantTile);
      dispatch_tile(rows, [&](auto n) {
        if constexpr (n() <= L::kQuantTile) quant_tiles<L, kType, n()>(a, first, last, row);
      });
      row += rows;
    }
  }
}

}  // namespace
}  // namespace llorch::cpu
