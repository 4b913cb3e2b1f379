// How weights lie on the device, one struct for each type: the place where a new quantization goes in.
//
// A matrix is cut into groups of 32 rows: one row is one lane, so a warp's loads are contiguous. A lane's unit is 16
// bytes:
//   units   [groups][units of a row][32 lanes][16 bytes]
// and of quantized types, for each segment of 256 elements:
//   highs   [groups][segments][high units][32 lanes][16 bytes]: the bits above a nibble
//   scales  [groups][segments][scale units][32 lanes][16 bytes]: scales and minimums
//   d       [groups][segments][32 lanes] f16: of a superblock whose other scales fill their unit
// Rows and columns that the matrix lacks are zero and are never used.
#pragma once

#include "backend/cuda/scales.h"

namespace llorch::cuda {

inline constexpr int kWordsPerBlock = kQuantBlock / 4;  // of four int8

// Float types: kPerUnit elements in a unit, widened exactly.
template <DType kType>
struct FloatCodes;

template <>
struct FloatCodes<DType::kF32> {
  using Element = float;
  static constexpr int kPerUnit = 4;
  __device__ static void widen(const uint4& u, float (&w)[kPerUnit]) {
    w[0] = __uint_as_float(u.x);
    w[1] = __uint_as_float(u.y);
    w[2] = __uint_as_float(u.z);
    w[3] = __uint_as_float(u.w);
  }
};

template <>
struct FloatCodes<DType::kF16> {
  using Element = uint16_t;
  static constexpr int kPerUnit = 8;
  __device__ static void widen(const uint4& u, float (&w)[kPerUnit]) {
    const unsigned words[4] = {u.x, u.y, u.z, u.w};
    for (int i = 0; i < 4; ++i) {
      w[2 * i] = widen_f16(static_cast<uint16_t>(words[i] & 0xffffu));
      w[2 * i + 1] = widen_f16(static_cast<uint16_t>(words[i] >> 16));
    }
  }
};

template <>
struct FloatCodes<DType::kBF16> {
  using Element = uint16_t;
  static constexpr int kPerUnit = 8;
  __device__ static void widen(const uint4& u, float (&w)[kPerUnit]) {
    const unsigned words[4] = {u.x, u.y, u.z, u.w};
    for (int i = 0; i < 4; ++i) {
      w[2 * i] = __uint_as_float(words[i] << 16);
      w[2 * i + 1] = __uint_as_float(words[i] & 0xffff0000u);
    }
  }
};

// Block-quantized types. kUnits units hold a block of 32, kHighUnits a segment's high bits. words() gives the codes of
// block b (0..7) of a segment as signed bytes (kSigned: some are negative) in ascending k; the exact product sum is
// that of the bytes divided by 2^kShift, less kOffset times the sum of the activations. store() is the way from the
// block of 32 that begins at element `first` of a file's block. Scales is one of scales.h.
template <DType kType>
struct BlockCodes;

template <>
struct BlockCodes<DType::kQ8_0> {
  using Block = BlockQ8_0;
  using Scales = BlockScales;
  static constexpr int kUnits = 2, kHighUnits = 0, kOffset = 0, kShift = 0;
  static constexpr bool kSigned = true;
  __device__ static void words(const uint4* u, const uint4*, int, int (&w)[kWordsPerBlock]) {
    const unsigned raw[8] = {u[0].x, u[0].y, u[0].z, u[0].w, u[1].x, u[1].y, u[1].z, u[1].w};
    for (int i = 0; i < kWordsPerBlock; ++i) w[i] = static_cast<int>(raw[i]);
  }
  __device__ static void store(const Block& file, int, const SegmentPlace& to, int b) {
    for (int u = 0; u < kUnits; ++u) {
      auto* bytes = reinterpret_cast<uint8_t*>(to.units + (b * kUnits + u) * kGroup);
      for (int i = 0; i < 16; ++i) bytes[i] = static_cast<uint8_t>(file.qs[16 * u + i]);
    }
  }
};

// Codes of four bits, and kHighBits (0 to 2) more that stand apart. Byte j of a unit holds the nibbles of k = j (low)
// and k = j + 16. Of the high bits, word k / 4 of the codes finds its four in every eighth bit of a word, so that two
// operations put them above the nibbles: one bit, word i's from bit i on; two bits, word i's from bit 2 * (i % 4) on of
// the word for i / 4.
template <typename B, typename S, int kHighBits, int kCodeOffset, int kCodeShift = 0>
struct NibbleCodes {
  using Block = B;
  using Scales = S;
  static constexpr int kUnits = 1, kHighUnits = 2 * kHighBits, kOffset = kCodeOffset, kShift = kCodeShift;
  static constexpr bool kSigned = kShift != 0;

  __device__ static void words(const uint4* u, const uint4* highs, int b, int (&w)[kWordsPerBlock]) {
    constexpr unsigned kLow = 0x0f0f0f0fu << kShift, kHigh = kHighBits == 1 ? 0x10101010u : 0x30303030u << kShift;
#pragma unroll
    for (int i = 0; i < kWordsPerBlock; ++i) {
      const unsigned raw = word_of(*u, i % 4);
      unsigned codes = (i < 4 ? raw << kShift : raw >> (4 - kShift)) & kLow;
      if constexpr (kHighBits == 1) codes |= moved(word_of(highs[b / 4], b % 4), 4 - i) & kHigh;
      if constexpr (kHighBits == 2)
        codes |= moved(word_of(highs[b / 2], b % 2 * 2 + i / 4), 4 + kShift - i % 4 * 2) & kHigh;
      w[i] = static_cast<int>(codes);
    }
  }

  __device__ static void store(const Block& file, int first, const SegmentPlace& to, int b) {
    auto* bytes = reinterpret_cast<uint8_t*>(to.units + b * kGroup);
    for (int i = 0; i < 16; ++i)
      bytes[i] = static_cast<uint8_t>((code(file, first + i) & 15u) | (code(file, first + i + 16) & 15u) << 4);
    if constexpr (kHighBits == 1) store_highs(file, first, 8, to.highs + b / 4 * kGroup, b % 4);
    if constexpr (kHighBits == 2) {
      store_highs(file, first, 4, to.highs + b / 2 * kGroup, b % 2 * 2);
      store_highs(file, first + 16, 4, to.highs + b / 2 * kGroup, b % 2 * 2 + 1);
    }
  }

 private:
  __device__ static unsigned moved(unsigned word, int left) { return left >= 0 ? word << left : word >> -left; }

  // Unsigned where there is an offset to subtract, else in two's complement.
  __device__ static unsigned code(const Block& file, int i) { return static_cast<unsigned>(quant(file, i) + kOffset); }

  // The high bits of n words of codes: one word of a unit.
  __device__ static void store_highs(const Block& file, int first, int n, uint4* unit, int word) {
    unsigned highs = 0;
    for (int i = 0; i < 4 * n; ++i)
      highs |= (code(file, first + i) >> 4 & ((1u << kHighBits) - 1)) << (i % 4 * 8 + i / 4 * kHighBits);
    reinterpret_cast<unsigned*>(unit)[word] = highs;
  }
};

template <>
struct BlockCodes<DType::kQ4_0> : NibbleCodes<BlockQ4_0, BlockScales, 0, 8> {};
template <>
struct BlockCodes<DType::kQ4_1> : NibbleCodes<BlockQ4_1, BlockScalesAndMinimums, 0, 0> {};
template <>
struct BlockCodes<DType::kQ5_0> : NibbleCodes<BlockQ5_0, BlockScales, 1, 16> {};
template <>
struct BlockCodes<DType::kQ5_1> : NibbleCodes<BlockQ5_1, BlockScalesAndMinimums, 1, 0> {};
template <>
struct BlockCodes<DType::kQ4_K> : NibbleCodes<BlockQ4_K, SuperblockScales, 0, 0> {};
template <>
struct BlockCodes<DType::kQ5_K> : NibbleCodes<BlockQ5_K, SuperblockScales, 1, 0> {};
// Two groups share a block, and the sum of 16 activations is not at hand to subtract an offset with: codes are six bits
// in two's complement at the top of their bytes, which is four times their value.
template <>
struct BlockCodes<DType::kQ6_K> : NibbleCodes<BlockQ6_K, SignedSuperblockScales, 2, 0, 2> {};

// Code k of a block, of which words() are given.
template <typename Codes>
__device__ int code_at(const int (&words)[kWordsPerBlock], int k) {
  return (static_cast<int8_t>(words[k / 4] >> (8 * (k % 4))) >> Codes::kShift) - Codes::kOffset;
}

// What a lane has of a segment: kBlocks of its blocks.
template <typename Codes, int kBlocks = kBlocksPerSegment>
struct SegmentUnits {
  uint4 units[kBlocks][Codes::kUnits];
  uint4 highs[Codes::kHighUnits > 0 ? Codes::kHighUnits : 1];
  uint4 scales[Codes::Scales::kUnits] = {};
  uint16_t d = 0;

  // n <= kBlocks blocks from `first` on, all loads in a row: read(pointer) gives what stands there.
  template <typename Read>
  __device__ void load(const SegmentPlace& from, int first, int n, Read read) {
#pragma unroll
    for (int i = 0; i < kBlocks; ++i)
      if (i < n) {
#pragma unroll
        for (int u = 0; u < Codes::kUnits; ++u)
          units[i][u] = read(from.units + ((first + i) * Codes::kUnits + u) * kGroup);
      }
#pragma unroll
    for (int u = 0; u < Codes::kHighUnits; ++u) highs[u] = read(from.highs + u * kGroup);
#pragma unroll
    for (int u = 0; u < Codes::Scales::kUnits; ++u) scales[u] = read(from.scales + u * kGroup);
    if constexpr (Codes::Scales::kHasD) d = read(from.d);
  }
  __device__ typename Codes::Scales make_scales() const { return {scales, d}; }
};

// Calls f with the codes of a type that is known at run time: f(FloatCodes<..>) or f(BlockCodes<..>).
template <typename F>
__host__ __device__ inline void with_codes(DType dtype, F f) {
  switch (dtype) {
    case DType::kF32:
      return f(FloatCodes<DType::kF32>{});
    case DType::kF16:
      return f(FloatCodes<DType::kF16>{});
    case DType::kBF16:
      return f(FloatCodes<DType::kBF16>{});
    case DType::kQ8_0:
      return f(BlockCodes<DType::kQ8_0>{});
    case DType::kQ4_0:
      return f(BlockCodes<DType::kQ4_0>{});
    case DType::kQ4_1:
      return f(BlockCodes<DType::kQ4_1>{});
    case DType::kQ5_0:
      return f(BlockCodes<DType::kQ5_0>{});
    case DType::kQ5_1:
      return f(BlockCodes<DType::kQ5_1>{});
    case DType::kQ4_K:
      return f(BlockCodes<DType::kQ4_K>{});
    case DType::kQ5_K:
      return f(BlockCodes<DType::kQ5_K>{});
    case DType::kQ6_K:
      return f(BlockCodes<DType::kQ6_K>{});
  }
}

template <typename Codes>
inline constexpr bool kIsQuantized = requires {
  Codes::kOffset;
};

}  // namespace llorch::cuda
