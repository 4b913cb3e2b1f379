// How sixteen rows of block-quantized weights lie side by side: integer codes, and beside them their scales. Written
// once by layout.cpp, read by the kernels (quant_codes.h).
//
// Codes, for each 32 columns. Eight bits: as pairs, [16 pairs][16 rows] of two int8. Fewer: unsigned, in planes of
// 32-bit words, each plane [words][16 rows]. The plane of the low four bits has 4 words: word c holds elements 8c ..
// 8c + 7, nibble n of its low half is element 8c + 2n, of its high half element 8c + 2n + 1. Then comes the plane of
// the bits above, b of them: a word holds elements 32 / b * c ..., field n of its low half is element 32 / b * c + 2n,
// of its high half the one behind. So one shift and mask of 16-bit lanes gives a pair.
//
// Scales, for each block of the file: a record of the columns of one of the structs below. Bytes of a weight are those
// of the file, but for Q4_K and Q5_K: scales and minimums of 6 bits stand in bytes, 4 bytes a block of 256 more (2.8
// and 2.3 %).
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "tensor/dtype.h"

namespace llorch::cpu {

inline constexpr int kGroup = 16;       // weight rows that lie side by side; one vector lane each
inline constexpr int kQuantBlock = 32;  // activations that share a scale
inline constexpr int kPairs = kQuantBlock / 2;
inline constexpr size_t kNibbleBytes = size_t{kGroup} * kQuantBlock / 2;

// All halves are binary16. m is what is added: of K-quants -dmin.
struct PlainScales {
  uint16_t d[kGroup];
};
struct ScalesAndMinimums {
  uint16_t d[kGroup], m[kGroup];
};
struct KScalesAndMinimums {
  uint16_t d[kGroup], m[kGroup];
  uint8_t scales[8][kGroup], minimums[8][kGroup];
};
struct KScales16 {
  uint16_t d[kGroup];
  int8_t scales[16][kGroup];
};

// kOffset: what is to be subtracted from a stored code. kScaleGroups: scales of 32 columns. kRecordBlocks: how many
// blocks of 32 columns share a record.
template <int kBitsOfCode, int kOffsetOfCode, typename Record>
struct PlacedAs {
  using Scales = Record;
  static constexpr int kBits = kBitsOfCode, kOffset = kOffsetOfCode;
  static constexpr size_t kCodeBytes = size_t{kGroup} * kQuantBlock * kBits / 8;
  static constexpr bool kMinimum = requires(Record r) { r.m; };
  static constexpr int kRecordBlocks = requires(Record r) { r.scales; }
  ? 256 / kQuantBlock : 1;
  static constexpr int kScaleGroups = std::is_same_v<Record, KScales16> ? 2 : 1;
};

template <DType>
struct Placed;
template <>
struct Placed<DType::kQ8_0> : PlacedAs<8, 0, PlainScales> {};
template <>
struct Placed<DType::kQ4_0> : PlacedAs<4, 8, PlainScales> {};
template <>
struct Placed<DType::kQ4_1> : PlacedAs<4, 0, ScalesAndMinimums> {};
template <>
struct Placed<DType::kQ5_0> : PlacedAs<5, 16, PlainScales> {};
template <>
struct Placed<DType::kQ5_1> : PlacedAs<5, 0, ScalesAndMinimums> {};
template <>
struct Placed<DType::kQ4_K> : PlacedAs<4, 0, KScalesAndMinimums> {};
template <>
struct Placed<DType::kQ5_K> : PlacedAs<5, 0, KScalesAndMinimums> {};
template <>
struct Placed<DType::kQ6_K> : PlacedAs<6, 32, KScales16> {};

}  // namespace llorch::cpu
