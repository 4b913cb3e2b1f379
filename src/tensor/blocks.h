// Block layouts of the quantized types and their scalar dequantization: the one place where these formats are written
// down. Shared by host and device sources. Source: the GGUF format's reference quantization, ggml-common.h.
//
// A block holds 32 consecutive elements of one row. `d` and `m` are binary16. Elements 0..15 of a 4-bit block are the
// low nibbles of qs[0..15], elements 16..31 the high nibbles.
#pragma once

#include <cstdint>

#include "base/half.h"
#include "base/host_device.h"

namespace llorch {

struct BlockQ8_0 {
  static constexpr int kElements = 32;
  static constexpr bool kHasMinimum = false;
  uint16_t d;
  int8_t qs[32];
};
static_assert(sizeof(BlockQ8_0) == 34);

struct BlockQ4_0 {
  static constexpr int kElements = 32;
  static constexpr bool kHasMinimum = false;
  uint16_t d;
  uint8_t qs[16];
};
static_assert(sizeof(BlockQ4_0) == 18);

struct BlockQ4_1 {
  static constexpr int kElements = 32;
  static constexpr bool kHasMinimum = true;
  uint16_t d;
  uint16_t m;
  uint8_t qs[16];
};
static_assert(sizeof(BlockQ4_1) == 20);

// Integer code of element i (0..31) as it enters exact integer sums: the value is scale(b) * quant(b, i) + minimum(b).
LLORCH_HD inline int quant(const BlockQ8_0& b, int i) { return b.qs[i]; }
LLORCH_HD inline int quant(const BlockQ4_0& b, int i) { return ((i < 16 ? b.qs[i] : b.qs[i - 16] >> 4) & 15) - 8; }
LLORCH_HD inline int quant(const BlockQ4_1& b, int i) { return (i < 16 ? b.qs[i] : b.qs[i - 16] >> 4) & 15; }

LLORCH_HD inline float scale(const BlockQ8_0& b) { return f16_to_f32(b.d); }
LLORCH_HD inline float scale(const BlockQ4_0& b) { return f16_to_f32(b.d); }
LLORCH_HD inline float scale(const BlockQ4_1& b) { return f16_to_f32(b.d); }

LLORCH_HD inline float minimum(const BlockQ8_0&) { return 0.0f; }
LLORCH_HD inline float minimum(const BlockQ4_0&) { return 0.0f; }
LLORCH_HD inline float minimum(const BlockQ4_1& b) { return f16_to_f32(b.m); }

// The element as a float: one product, for Q4_1 then one sum, each rounded.
LLORCH_HD inline float dequantize(const BlockQ8_0& b, int i) { return scale(b) * static_cast<float>(quant(b, i)); }
LLORCH_HD inline float dequantize(const BlockQ4_0& b, int i) { return scale(b) * static_cast<float>(quant(b, i)); }
LLORCH_HD inline float dequantize(const BlockQ4_1& b, int i) {
  return scale(b) * static_cast<float>(quant(b, i)) + minimum(b);
}

}  // namespace llorch
