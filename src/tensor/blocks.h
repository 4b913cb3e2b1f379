// Block layouts of the quantized types and their scalar dequantization: the one place where these formats are written
// down. Shared by host and device sources. Source: the GGUF format's reference quantization, ggml-common.h and
// ggml-quants.c; tests/fixtures/make_block_vectors.py compares with the gguf package.
//
// A block holds kElements consecutive elements of one row in scale groups of kScaleGroup. Element i of a block, with
// g = i / kScaleGroup, is
//     scale(b, g) * quant(b, i) + minimum(b, g)          (the sum only where kHasMinimum)
// with an integer quant() and an exact scale(). `d`, `m` and `dmin` are binary16. Shared by all types: the low four
// bits of two elements, 16 (blocks of 32) or 32 (K-quants) apart, stand in one byte of qs.
#pragma once

#include <cstdint>

#include "base/half.h"
#include "base/host_device.h"
#include "tensor/dtype.h"

namespace llorch {

struct BlockQ8_0 {
  static constexpr DType kType = DType::kQ8_0;
  static constexpr int kElements = 32, kScaleGroup = 32;
  static constexpr bool kHasMinimum = false;
  uint16_t d;
  int8_t qs[32];
};
static_assert(sizeof(BlockQ8_0) == 34);

struct BlockQ4_0 {
  static constexpr DType kType = DType::kQ4_0;
  static constexpr int kElements = 32, kScaleGroup = 32;
  static constexpr bool kHasMinimum = false;
  uint16_t d;
  uint8_t qs[16];
};
static_assert(sizeof(BlockQ4_0) == 18);

struct BlockQ4_1 {
  static constexpr DType kType = DType::kQ4_1;
  static constexpr int kElements = 32, kScaleGroup = 32;
  static constexpr bool kHasMinimum = true;
  uint16_t d;
  uint16_t m;
  uint8_t qs[16];
};
static_assert(sizeof(BlockQ4_1) == 20);

struct BlockQ5_0 {
  static constexpr DType kType = DType::kQ5_0;
  static constexpr int kElements = 32, kScaleGroup = 32;
  static constexpr bool kHasMinimum = false;
  uint16_t d;
  uint8_t qh[4];  // bit i % 8 of byte i / 8: the fifth bit of element i
  uint8_t qs[16];
};
static_assert(sizeof(BlockQ5_0) == 22);

struct BlockQ5_1 {
  static constexpr DType kType = DType::kQ5_1;
  static constexpr int kElements = 32, kScaleGroup = 32;
  static constexpr bool kHasMinimum = true;
  uint16_t d;
  uint16_t m;
  uint8_t qh[4];
  uint8_t qs[16];
};
static_assert(sizeof(BlockQ5_1) == 24);

// K-quants: 256 elements share d and dmin; each group of 32 (Q6_K: of 16) has a small integer scale of its own.
struct BlockQ4_K {
  static constexpr DType kType = DType::kQ4_K;
  static constexpr int kElements = 256, kScaleGroup = 32;
  static constexpr bool kHasMinimum = true;
  uint16_t d;
  uint16_t dmin;
  uint8_t scales[12];  // 6 bits each: k_scale(), k_minimum()
  uint8_t qs[128];     // groups 2j and 2j + 1 are the low and high nibbles of bytes 32j .. 32j + 31
};
static_assert(sizeof(BlockQ4_K) == 144);

struct BlockQ5_K {
  static constexpr DType kType = DType::kQ5_K;
  static constexpr int kElements = 256, kScaleGroup = 32;
  static constexpr bool kHasMinimum = true;
  uint16_t d;
  uint16_t dmin;
  uint8_t scales[12];
  uint8_t qh[32];  // bit g of byte i: the fifth bit of element i of group g
  uint8_t qs[128];
};
static_assert(sizeof(BlockQ5_K) == 176);

struct BlockQ6_K {
  static constexpr DType kType = DType::kQ6_K;
  static constexpr int kElements = 256, kScaleGroup = 16;
  static constexpr bool kHasMinimum = false;
  uint8_t ql[128];  // of each half of 128 elements: 0..63 the low nibbles of 64 bytes, 64..127 their high nibbles
  uint8_t qh[64];   // of each half: bits 2j, 2j + 1 of byte i are the high bits of element 32j + i
  int8_t scales[16];
  uint16_t d;
};
static_assert(sizeof(BlockQ6_K) == 210);

// The 6-bit scale and minimum of group g (0..7): those of groups 4..7 have their high two bits in the bytes of 0..3.
LLORCH_HD inline int k_scale(const uint8_t* scales, int g) {
  return g < 4 ? scales[g] & 63 : (scales[g + 4] & 15) | (scales[g - 4] >> 6) << 4;
}
LLORCH_HD inline int k_minimum(const uint8_t* scales, int g) {
  return g < 4 ? scales[g + 4] & 63 : scales[g + 4] >> 4 | (scales[g] >> 6) << 4;
}

// Integer code of element i (0 .. kElements - 1) as it enters exact integer sums.
LLORCH_HD inline int nibble32(const uint8_t* qs, int i) { return (i < 16 ? qs[i] : qs[i - 16] >> 4) & 15; }
LLORCH_HD inline int nibble_k(const uint8_t* qs, int i) { return qs[i / 64 * 32 + i % 32] >> (i / 32 % 2 * 4) & 15; }
LLORCH_HD inline int quant(const BlockQ8_0& b, int i) { return b.qs[i]; }
LLORCH_HD inline int quant(const BlockQ4_0& b, int i) { return nibble32(b.qs, i) - 8; }
LLORCH_HD inline int quant(const BlockQ4_1& b, int i) { return nibble32(b.qs, i); }
LLORCH_HD inline int quant(const BlockQ5_0& b, int i) {
  return (nibble32(b.qs, i) | (b.qh[i / 8] >> i % 8 & 1) << 4) - 16;
}
LLORCH_HD inline int quant(const BlockQ5_1& b, int i) { return nibble32(b.qs, i) | (b.qh[i / 8] >> i % 8 & 1) << 4; }
LLORCH_HD inline int quant(const BlockQ4_K& b, int i) { return nibble_k(b.qs, i); }
LLORCH_HD inline int quant(const BlockQ5_K& b, int i) { return nibble_k(b.qs, i) | (b.qh[i % 32] >> i / 32 & 1) << 4; }
LLORCH_HD inline int quant(const BlockQ6_K& b, int i) {
  const int half = i / 128, low = b.ql[half * 64 + i % 64] >> (i / 64 % 2 * 4) & 15;
  return (low | (b.qh[half * 32 + i % 32] >> (i / 32 % 4 * 2) & 3) << 4) - 32;
}

// Scale of group g, exact: a binary16, in K-quants times an integer of at most 8 bits.
LLORCH_HD inline float scale(const BlockQ8_0& b, int = 0) { return f16_to_f32(b.d); }
LLORCH_HD inline float scale(const BlockQ4_0& b, int = 0) { return f16_to_f32(b.d); }
LLORCH_HD inline float scale(const BlockQ4_1& b, int = 0) { return f16_to_f32(b.d); }
LLORCH_HD inline float scale(const BlockQ5_0& b, int = 0) { return f16_to_f32(b.d); }
LLORCH_HD inline float scale(const BlockQ5_1& b, int = 0) { return f16_to_f32(b.d); }
LLORCH_HD inline float scale(const BlockQ4_K& b, int g) {
  return f16_to_f32(b.d) * static_cast<float>(k_scale(b.scales, g));
}
LLORCH_HD inline float scale(const BlockQ5_K& b, int g) {
  return f16_to_f32(b.d) * static_cast<float>(k_scale(b.scales, g));
}
LLORCH_HD inline float scale(const BlockQ6_K& b, int g) { return f16_to_f32(b.d) * static_cast<float>(b.scales[g]); }

// What group g adds to each element, exact. K-quants store what is subtracted.
LLORCH_HD inline float minimum(const BlockQ8_0&, int = 0) { return 0.0f; }
LLORCH_HD inline float minimum(const BlockQ4_0&, int = 0) { return 0.0f; }
LLORCH_HD inline float minimum(const BlockQ4_1& b, int = 0) { return f16_to_f32(b.m); }
LLORCH_HD inline float minimum(const BlockQ5_0&, int = 0) { return 0.0f; }
LLORCH_HD inline float minimum(const BlockQ5_1& b, int = 0) { return f16_to_f32(b.m); }
LLORCH_HD inline float minimum(const BlockQ4_K& b, int g) {
  return -(f16_to_f32(b.dmin) * static_cast<float>(k_minimum(b.scales, g)));
}
LLORCH_HD inline float minimum(const BlockQ5_K& b, int g) {
  return -(f16_to_f32(b.dmin) * static_cast<float>(k_minimum(b.scales, g)));
}
LLORCH_HD inline float minimum(const BlockQ6_K&, int) { return 0.0f; }

// The element as a float: one product, where there is a minimum then one sum, each rounded.
template <typename Block>
LLORCH_HD inline float dequantize(const Block& b, int i) {
  const int g = i / Block::kScaleGroup;
  const float product = scale(b, g) * static_cast<float>(quant(b, i));
  if constexpr (Block::kHasMinimum)
    return product + minimum(b, g);
  else
    return product;
}

// Calls visit with an empty block of the type; does nothing for float types.
template <typename Visit>
void visit_block_type(DType dtype, Visit visit) {
  switch (dtype) {
    case DType::kF32:
    case DType::kF16:
    case DType::kBF16:
      return;
    case DType::kQ8_0:
      return visit(BlockQ8_0{});
    case DType::kQ4_0:
      return visit(BlockQ4_0{});
    case DType::kQ4_1:
      return visit(BlockQ4_1{});
    case DType::kQ5_0:
      return visit(BlockQ5_0{});
    case DType::kQ5_1:
      return visit(BlockQ5_1{});
    case DType::kQ4_K:
      return visit(BlockQ4_K{});
    case DType::kQ5_K:
      return visit(BlockQ5_K{});
    case DType::kQ6_K:
      return visit(BlockQ6_K{});
  }
}

}  // namespace llorch
