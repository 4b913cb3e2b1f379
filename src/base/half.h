// Conversions between float and the 16-bit formats, in integer operations only: the same bits on every compiler and
// device, also for subnormals. Shared by host and device sources.
#pragma once

#include <bit>
#include <cstdint>

#include "base/host_device.h"

namespace llorch {

// IEEE binary16 -> binary32, exact. NaN payloads are kept in the high bits.
LLORCH_HD inline float f16_to_f32(uint16_t h) {
  const uint32_t sign = static_cast<uint32_t>(h & 0x8000u) << 16;
  const uint32_t exponent = (h >> 10) & 0x1fu;
  uint32_t mantissa = h & 0x3ffu;
  if (exponent == 0x1f) return std::bit_cast<float>(sign | 0x7f800000u | (mantissa << 13));
  if (exponent != 0) return std::bit_cast<float>(sign | ((exponent + 112) << 23) | (mantissa << 13));
  if (mantissa == 0) return std::bit_cast<float>(sign);
  uint32_t shift = 0;  // subnormal: normalise
  while ((mantissa & 0x400u) == 0) {
    mantissa <<= 1;
    ++shift;
  }
  return std::bit_cast<float>(sign | ((113 - shift) << 23) | ((mantissa & 0x3ffu) << 13));
}

// binary32 -> IEEE binary16, round to nearest even; overflow saturates to +-65504 (infinity too), NaN stays NaN.
LLORCH_HD inline uint16_t f32_to_f16_saturate(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const uint16_t sign = static_cast<uint16_t>((bits >> 16) & 0x8000u);
  const uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return static_cast<uint16_t>(sign | 0x7e00u);
  if (magnitude >= 0x477ff000u) return static_cast<uint16_t>(sign | 0x7bffu);  // would round to 65536 or more
  if (magnitude < 0x33000001u) return sign;                                    // rounds to zero (2^-25 is a tie to 0)
  const uint32_t exponent = magnitude >> 23;
  const uint32_t mantissa = (magnitude & 0x7fffffu) | 0x800000u;
  const uint32_t drop = exponent < 113 ? 126 - exponent : 13;  // bits to round away; more for subnormal results
  const uint32_t half = 1u << (drop - 1);
  const uint32_t rest = mantissa & ((1u << drop) - 1);
  uint32_t result = mantissa >> drop;
  if (rest > half || (rest == half && (result & 1u))) ++result;
  // For normals the implicit bit adds one to the exponent field; a carry out of the mantissa does so too.
  if (exponent >= 113) result += (exponent - 113) << 10;
  return static_cast<uint16_t>(sign | result);
}

// bfloat16 -> binary32, exact.
LLORCH_HD inline float bf16_to_f32(uint16_t b) { return std::bit_cast<float>(static_cast<uint32_t>(b) << 16); }

// binary32 -> bfloat16, round to nearest even; NaN stays NaN.
LLORCH_HD inline uint16_t f32_to_bf16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<uint16_t>((bits >> 16) | 0x40u);
  return static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

}  // namespace llorch
