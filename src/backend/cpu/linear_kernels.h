// Linear with float weights, and what it shares with that of block-quantized weights (quant_kernels.h): written once
// over sixteen lanes. One output is one lane, so sums need no horizontal step and their order is that of
// backend/reference/arithmetic.h.
//
// Included by one source file for each instruction set, in an anonymous namespace: nothing here may be shared between
// files that are compiled for different machines.
#pragma once

#include "backend/cpu/kernels.h"

namespace llorch::cpu {
namespace {

inline constexpr int kSegment = 256;  // K is summed in segments of this many elements

// y = total (+ bias) (+ y) for one group of 16 outputs of one row.
template <typename L>
[[gnu::always_inline]] inline void store_outputs(const LinearArgs& a, int group, int row, typename L::F total) {
  const int column = group * kGroup;
  const int n = a.w.rows - column;
  float* y = a.y + static_cast<size_t>(row) * a.ldy + column;
  if (n >= kGroup) {
    if (a.bias != nullptr) total = L::add(total, L::load(a.bias + column));
    if (a.accumulate) total = L::add(L::load(y), total);
    L::store(y, total);
  } else {
    if (a.bias != nullptr) total = L::add(total, L::load_first(a.bias + column, n));
    if (a.accumulate) total = L::add(L::load_first(y, n), total);
    L::store_first(y, total, n);
  }
}

template <typename L>
struct WidenF32 {
  using Element = float;
  [[gnu::always_inline]] static typename L::F load(const float* p) { return L::load(p); }
};
template <typename L>
struct WidenF16 {
  using Element = uint16_t;
  [[gnu::always_inline]] static typename L::F load(const uint16_t* p) { return L::load_f16(p); }
};
template <typename L>
struct WidenBF16 {
  using Element = uint16_t;
  [[gnu::always_inline]] static typename L::F load(const uint16_t* p) { return L::load_bf16(p); }
};

// sum += w x for k of [begin, end), which is one segment. x: a tile of kRows rows, [cols][kRows].
template <typename L, typename Widen, int kRows, int kGroups>
[[gnu::always_inline]] inline void sum_segment(const typename Widen::Element* const (&w)[kGroups], const float* x,
                                               int begin, int end, typename L::F (&sum)[kRows][kGroups]) {
  using F = typename L::F;
#pragma GCC unroll 4
  for (int k = begin; k < end; ++k) {
    F weight[kGroups];
#pragma GCC unroll 16
    for (int g = 0; g < kGroups; ++g) {
      const auto* p = w[g] + static_cast<size_t>(k) * kGroup;
      weight[g] = Widen::load(p);
    }
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
      const F value = L::set1(x[static_cast<size_t>(k) * kRows + r]);
#pragma GCC unroll 16
      for (int g = 0; g < kGroups; ++g) sum[r][g] = L::fma(weight[g], value, sum[r][g]);
    }
  }
}

// kRows activation rows x kGroups weight groups, all of K.
template <typename L, typename Widen, int kRows, int kGroups>
void float_tile(const LinearArgs& a, int group, int row) {
  using F = typename L::F;
  using Element = typename Widen::Element;
  const int cols = a.w.cols;
  const Element* w[kGroups];
#pragma GCC unroll 16
  for (int g = 0; g < kGroups; ++g)
    w[g] = reinterpret_cast<const Element*>(a.w.data + static_cast<size_t>(group + g) * a.w.data_stride);
  const float* x = a.x.floats + static_cast<size_t>(row) * cols;
  F total[kRows][kGroups];
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 16
    for (int g = 0; g < kGroups; ++g) total[r][g] = L::zero();
  for (int begin = 0; begin < cols; begin += kSegment) {
    const int end = begin + kSegment < cols ? begin + kSegment : cols;
    F sum[kRows][kGroups];
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 16
      for (int g = 0; g < kGroups; ++g) sum[r][g] = L::zero();
    sum_segment<L, Widen>(w, x, begin, end, sum);
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 16
      for (int g = 0; g < kGroups; ++g) total[r][g] = L::add(total[r][g], sum[r][g]);
  }
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 16
    for (int g = 0; g < kGroups; ++g) store_outputs<L>(a, group + g, row + r, total[r][g]);
}

// Rows of the next tile: the largest compiled size that fits. Twelve sizes would cost code, not speed. Sixteen are two
// tiles of eight: one of four has too few sums to keep the multiply-adds busy.
inline int largest_tile(int rows, int limit) {
  if (rows == 16 && limit > 8) return 8;
  for (const int size : {12, 8, 6, 4, 2})
    if (size <= limit && size <= rows) return size;
  return 1;
}

template <typename Tile>
[[gnu::always_inline]] inline void dispatch_tile(int rows, Tile tile) {
  switch (rows) {
    case 12:
      return tile(std::integral_constant<int, 12>{});
    case 8:
      return tile(std::integral_constant<int, 8>{});
    case 6:
      return tile(std::integral_constant<int, 6>{});
    case 4:
      return tile(std::integral_constant<int, 4>{});
    case 2:
      return tile(std::integral_constant<int, 2>{});
    default:
      return tile(std::integral_constant<int, 1>{});
  }
}

// Groups whose weights stay in a core's second-level cache while all tiles pass over them. Several at once, so that a
// tile's activations, which come from further away, are fetched once for all of them.
inline int groups_in_cache(const LinearArgs& a) {
  constexpr size_t kCacheBytes = 400 << 10;
  const size_t n = kCacheBytes / a.w.data_stride;
  return n < 2 ? 2 : static_cast<int>(n / 2 * 2);
}

template <typename L, typename Widen, int kRows>
void float_tiles(const LinearArgs& a, int first, int last, int row) {
  // A single row has one chain of sums for each register of a group, and each waits for itself: two groups at least.
  constexpr int kGroups = kRows == 1 && L::kFloatGroups < 2 ? 2 : L::kFloatGroups;
  int group = first;
  for (; group + kGroups <= last; group += kGroups) float_tile<L, Widen, kRows, kGroups>(a, group, row);
  for (; group < last; ++group) float_tile<L, Widen, kRows, 1>(a, group, row);
}

// Many rows of 16-bit weights, where L::kWidenOnce: on Intel's cores widening takes the ports of the multiply-adds, one
// instruction of seven with tiles of twelve rows, so a segment of as many groups as a tile has is widened once and
// stays in the first-level cache for all rows. Segment by segment, in the order of float_tile; the totals wait in
// memory in between. A segment of the rows comes from afar once for kWidenedGroups, and weights are asked for while
// those before them are multiplied: on two Sapphire Rapids cores the kernel has 91 % of the multiply-add peak (5632
// columns: 88); four groups at a time, not asked for, have 82 (79).
inline constexpr int kWidenedRows = 264;  // with these groups 135 KB of totals, and a segment of 270 KB
inline constexpr int kEnoughRows = 36;

// Adds a segment of n columns of one tile to its totals [row][kWidenedGroups][16]; w: [kFloatGroups][kSegment][16].
template <typename L, int kRows>
void widened_tile(const float* w, const float* x, int n, bool is_first, float* totals) {
  constexpr int kGroups = L::kFloatGroups;
  const float* groups[kGroups];
  typename L::F part[kRows][kGroups];
#pragma GCC unroll 16
  for (int g = 0; g < kGroups; ++g) {
    groups[g] = w + g * kSegment * kGroup;
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) part[r][g] = L::zero();
  }
  sum_segment<L, WidenF32<L>>(groups, x, 0, n, part);
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 16
    for (int g = 0; g < kGroups; ++g) {
      float* total = totals + (r * kWidenedGroups + g) * kGroup;
      L::store(total, L::add(is_first ? L::zero() : L::load(total), part[r][g]));
    }
}

// Groups [first, first + groups), at most kWidenedGroups and a multiple of kFloatGroups; rows [row, row + rows), whole
// tiles.
template <typename L, typename Widen>
void widened_linear(const LinearArgs& a, int first, int groups, int row, int rows) {
  using Element = typename Widen::Element;
  constexpr int kGroups = L::kFloatGroups;
  constexpr int kSegmentBytes = kSegment * kGroup * static_cast<int>(sizeof(Element));
  alignas(64) float weights[kGroups * kSegment * kGroup];
  alignas(64) float totals[kWidenedRows * kWidenedGroups * kGroup];
  const int cols = a.w.cols;
  const auto segment = [&](int group, int begin) {
    return a.w.data + static_cast<size_t>(first + group) * a.w.data_stride +
           static_cast<size_t>(begin) * kGroup * sizeof(Element);
  };
  for (int begin = 0; begin < cols; begin += kSegment) {
    const int n = begin + kSegment < cols ? kSegment : cols - begin;
    for (int group = 0; group < groups; group += kGroups) {
      for (int g = 0; g < kGroups; ++g) {
        const auto* from = reinterpret_cast<const Element*>(segment(group + g, begin));
        float* to = weights + g * kSegment * kGroup;
        for (int k = 0; k < n; ++k) L::store(to + k * kGroup, Widen::load(from + k * kGroup));
      }
      const bool wraps = group + kGroups == groups;
      const std::byte* next = segment(wraps ? 0 : group + kGroups, wraps ? begin + kSegment : begin);
      int asked = 0;  // bytes of each next group
      for (int r = 0; r < rows;) {
        const int tile = largest_tile(rows - r, L::kFloatTile);
        const float* x = a.x.floats + static_cast<size_t>(row + r) * cols + static_cast<size_t>(begin) * tile;
        float* total = totals + (r * kWidenedGroups + group) * kGroup;
        const auto visit_outputs = [&](auto visit) {
          if (begin + n < cols) return;
          for (int i = 0; i < tile; ++i)
            for (int g = 0; g < kGroups; ++g)
              visit(first + group + g, row + r + i, total + (i * kWidenedGroups + g) * kGroup);
        };
        // Where outputs go is asked for a tile before they do: rows of y lie pages apart.
        visit_outputs([&](int g, int y_row, const float*) { L::prefetch(a.y + y_row * a.ldy + g * kGroup); });
        dispatch_tile(tile, [&](auto size) { widened_tile<L, size()>(weights, x, n, begin == 0, total); });
        visit_outputs([&](int g, int y_row, const float* sum) { store_outputs<L>(a, g, y_row, L::load(sum)); });
        r += tile;
        for (; asked < kSegmentBytes * r / rows; asked += 64)
          for (int g = 0; g < kGroups; ++g) L::prefetch_far(next + static_cast<size_t>(g) * a.w.data_stride + asked);
      }
    }
  }
}

// The first groups of a call, as many as tiles are wide: returns the next.
template <typename L, typename Widen>
int widened_groups(const LinearArgs& a) {
  const int last = a.first_group + (a.last_group - a.first_group) / L::kFloatGroups * L::kFloatGroups;
  for (int row = 0; row < a.n_rows; row += kWidenedRows)
    for (int group = a.first_group; group < last; group += kWidenedGroups)
      widened_linear<L, Widen>(a, group, last - group < kWidenedGroups ? last - group : kWidenedGroups, row,
                               a.n_rows - row < kWidenedRows ? a.n_rows - row : kWidenedRows);
  return last;
}

template <typename L, typename Widen>
void float_linear(const LinearArgs& a) {
  int start = a.first_group;
  if constexpr (L::kWidenOnce && sizeof(typename Widen::Element) < sizeof(float))
    if (a.n_rows >= kEnoughRows) start = widened_groups<L, Widen>(a);
  const int step = groups_in_cache(a);
  for (int first = start; first < a.last_group; first += step) {
    const int last = first + step < a.last_group ? first + step : a.last_group;
    for (int row = 0; row < a.n_rows;) {
      const int rows = largest_tile(a.n_rows - row, L::kFloatTile);
      dispatch_tile(rows, [&](auto n) {
        if constexpr (n() <= L::kFloatTile) float_tiles<L, Widen, n()>(a, first, last, row);
      });
      row += rows;
    }
  }
}

template <typename L>
int tile_rows(DType weights, int rows) {
  return largest_tile(rows, weights >= DType::kQ8_0 ? L::kQuantTile : L::kFloatTile);
}

}  // namespace
}  // namespace llorch::cpu
