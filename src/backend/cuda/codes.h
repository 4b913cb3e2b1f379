// How weights lie on the device, one struct for each type: the place where a new quantization goes in.
//
// A matrix is cut into groups of 32 rows: one row is one lane, so a warp's loads are contiguous. A lane's unit is 16
// bytes:
//   units   [groups][units of a row][32 lanes][16 bytes]
//   scales  [groups][segments of a row][32 lanes][8] f16, one for each block of 32 in a segment of 256; minimums alike
// Rows and columns that the matrix lacks are zero and are never used.
#pragma once

#include "backend/cuda/device_code.h"
#include "backend/cuda/kernels.h"
#include "tensor/blocks.h"

namespace llorch::cuda {

inline constexpr int kBlocksPerSegment = kSegment / kQuantBlock;
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

// Block-quantized types: kUnits units hold a block of 32. words() gives its codes as bytes in ascending k; the exact
// product sum is that of the bytes less kOffset times the sum of the activations. store() is the way from a file's
// block.
template <DType kType>
struct BlockCodes;

template <>
struct BlockCodes<DType::kQ8_0> {
  using Block = BlockQ8_0;
  static constexpr int kUnits = 2;
  static constexpr int kOffset = 0;
  __device__ static void words(const uint4* u, int (&w)[kWordsPerBlock]) {
    const unsigned raw[8] = {u[0].x, u[0].y, u[0].z, u[0].w, u[1].x, u[1].y, u[1].z, u[1].w};
    for (int i = 0; i < kWordsPerBlock; ++i) w[i] = static_cast<int>(raw[i]);
  }
  __device__ static void store(const Block& b, uint8_t (&bytes)[16 * kUnits]) {
    for (int i = 0; i < 32; ++i) bytes[i] = static_cast<uint8_t>(b.qs[i]);
  }
  __device__ static uint16_t minimum(const Block&) { return 0; }
};

// Nibbles stay as in the file: byte j of a block holds k = j (low) and k = j + 16.
template <typename B, int kNibbleOffset>
struct NibbleCodes {
  using Block = B;
  static constexpr int kUnits = 1;
  static constexpr int kOffset = kNibbleOffset;
  __device__ static void words(const uint4* u, int (&w)[kWordsPerBlock]) {
    const unsigned raw[4] = {u->x, u->y, u->z, u->w};
    for (int i = 0; i < 4; ++i) {
      w[i] = static_cast<int>(raw[i] & 0x0f0f0f0fu);
      w[4 + i] = static_cast<int>((raw[i] >> 4) & 0x0f0f0f0fu);
    }
  }
  __device__ static void store(const Block& b, uint8_t (&bytes)[16]) {
    for (int i = 0; i < 16; ++i) bytes[i] = b.qs[i];
  }
};

template <>
struct BlockCodes<DType::kQ4_0> : NibbleCodes<BlockQ4_0, 8> {
  __device__ static uint16_t minimum(const Block&) { return 0; }
};
template <>
struct BlockCodes<DType::kQ4_1> : NibbleCodes<BlockQ4_1, 0> {
  __device__ static uint16_t minimum(const Block& b) { return b.m; }
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
    case DType::kQ5_1:
    case DType::kQ4_K:
    case DType::kQ5_K:
    case DType::kQ6_K:
      return;
  }
}

template <typename Codes>
inline constexpr bool kIsQuantized = requires {
  Codes::kOffset;
};

}  // namespace llorch::cuda
