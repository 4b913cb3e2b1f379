// Codes and scales of sixteen rows of block-quantized weights (quant_layout.h) as vector lanes: one row, one lane.
//
// Included by one source file for each instruction set (see linear_kernels.h).
#pragma once

#include "backend/cpu/quant_layout.h"

namespace llorch::cpu {
namespace {

// The integer pairs of 32 columns. pair<p>() gives pair p of each row as two int16.
template <typename L, int kBits>
struct Codes {
  const std::byte* planes;

  template <int kPair>
  [[gnu::always_inline]] typename L::I pair() const {
    return L::or_i(low<kPair>(), high<kPair>());
  }

 private:
  template <int kPair>
  [[gnu::always_inline]] typename L::I low() const {
    const typename L::I word = L::load_i(planes + kPair / 4 * 4 * kGroup);
    return L::and_i(L::template shift_right_16<kPair % 4 * 4>(word), L::set1_i(0x000f000f));
  }
  // At its place above the low four bits. A left shift crosses the halves of a word below the bits that stay.
  template <int kPair>
  [[gnu::always_inline]] typename L::I high() const {
    constexpr int kHighBits = kBits - 4, kPairsOfWord = 16 / kHighBits;
    constexpr int kAt = kPair % kPairsOfWord * kHighBits;
    const typename L::I mask = L::set1_i(((1 << kHighBits) - 1) << 4 | ((1 << kHighBits) - 1) << 20);
    const typename L::I word = L::load_i(planes + kNibbleBytes + kPair / kPairsOfWord * 4 * kGroup);
    if constexpr (kAt >= 4)
      return L::and_i(L::template shift_right_16<kAt - 4>(word), mask);
    else
      return L::and_i(L::template shift_left<4 - kAt>(word), mask);
  }
};

template <typename L>
struct Codes<L, 8> {
  const std::byte* planes;
  template <int kPair>
  [[gnu::always_inline]] typename L::I pair() const {
    return L::load_i8_as_i16(reinterpret_cast<const int8_t*>(planes) + kPair * 2 * kGroup);
  }
};

template <typename L>
struct Codes<L, 4> {
  const std::byte* planes;
  template <int kPair>
  [[gnu::always_inline]] typename L::I pair() const {
    const typename L::I word = L::load_i(planes + kPair / 4 * 4 * kGroup);
    constexpr int kShift = kPair % 4 * 4;
    if constexpr (kShift == 12)
      return L::template shift_right_16<12>(word);
    else
      return L::and_i(L::template shift_right_16<kShift>(word), L::set1_i(0x000f000f));
  }
};

// One record. scale(g), minimum(g): of the record's scale group g; both products are exact.
template <typename L, typename Record>
class RecordScales {
 public:
  using F = typename L::F;
  [[gnu::always_inline]] explicit RecordScales(const Record& record)
      : record_(&record), d_(L::load_f16(record.d)), m_(L::zero()) {
    if constexpr (requires(Record r) { r.m; }) m_ = L::load_f16(record_->m);
  }
  [[gnu::always_inline]] F scale(int g) const {
    if constexpr (requires(Record r) { r.scales; })
      return L::mul(d_, L::load_8bit(record_->scales[g]));
    else
      return d_;
  }
  [[gnu::always_inline]] F minimum(int g) const {
    if constexpr (requires(Record r) { r.minimums; })
      return L::mul(m_, L::load_8bit(record_->minimums[g]));
    else
      return m_;
  }

 private:
  const Record* record_;
  F d_, m_;
};

}  // namespace
}  // namespace llorch::cpu
