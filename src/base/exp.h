// e^x in float32 with one result on every compiler and device: range reduction and a polynomial, in IEEE operations and
// explicit FMAs. Used by SiLU, softmax and the sampler; docs/numerics.md states it.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

#include "base/host_device.h"

namespace llorch {

// Constants shared with the vector forms of the same function (backend/cpu/lanes*.h).
namespace exp_constants {
inline constexpr float kMin = -64.0f;  // below: 0, so that no product of an exp is subnormal in practice
inline constexpr float kMax = 88.72f;  // above: +infinity
inline constexpr float kLog2e = 1.44269504088896341f;
inline constexpr float kMagic = 12582912.0f;           // 1.5 * 2^23: adding it rounds to an integer, nearest even
inline constexpr float kLn2High = 0.693145751953125f;  // 17 bits: n * kLn2High is exact for |n| < 128
inline constexpr float kLn2Low = 1.42860682030941723e-6f;
// Weighted least-maximum fit of (e^r - 1 - r - r^2 / 2) / r^3 on |r| <= ln(2) / 2; highest power first.
inline constexpr float kC6 = 0.0014217228f;
inline constexpr float kC5 = 0.008360888f;
inline constexpr float kC4 = 0.04166332f;
inline constexpr float kC3 = 0.16666608f;
inline constexpr float kC2 = 0.5f;
}  // namespace exp_constants

// Relative error below 1e-7 for -64 <= x <= 88.72; 0 below, +infinity above, NaN for NaN. The choice comes last:
// without branches a GPU's thread makes several side by side.
LLORCH_HD inline float exp_f32(float x) {
  namespace c = exp_constants;
  const float shifted = fmaf(x, c::kLog2e, c::kMagic);
  const float n = shifted - c::kMagic;
  float r = fmaf(n, -c::kLn2High, x);
  r = fmaf(n, -c::kLn2Low, r);
  float p = c::kC6;
  p = fmaf(p, r, c::kC5);
  p = fmaf(p, r, c::kC4);
  p = fmaf(p, r, c::kC3);
  p = fmaf(p, r, c::kC2);
  p = fmaf(p, r, 1.0f);
  p = fmaf(p, r, 1.0f);
  // 2^n in two exact steps: n = 128 occurs and has no float of its own.
  const uint32_t exponent = std::bit_cast<uint32_t>(shifted) - std::bit_cast<uint32_t>(c::kMagic) + 126u;
  const float inside = (p * 2.0f) * std::bit_cast<float>(exponent << 23);
  return x < c::kMin ? 0.0f : x > c::kMax ? INFINITY : inside;
}

// x / (1 + e^-x)
LLORCH_HD inline float silu_f32(float x) { return x / (1.0f + exp_f32(-x)); }

}  // namespace llorch
