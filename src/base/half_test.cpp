// Checks the integer conversions against an oracle that knows only what a value is: ldexp and distances in double.
#include "base/half.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>

namespace llorch {
namespace {

// The value of a finite binary16, from the definition of the format.
double f16_value(uint16_t h) {
  const int exponent = (h >> 10) & 0x1f;
  const int mantissa = h & 0x3ff;
  const double magnitude = exponent == 0 ? std::ldexp(mantissa, -24) : std::ldexp(1024 + mantissa, exponent - 25);
  return (h & 0x8000) != 0 ? -magnitude : magnitude;
}

bool is_finite_f16(uint16_t h) { return (h & 0x7c00) != 0x7c00; }

// The nearest finite binary16 of a magnitude, ties to the even code: bisection over the codes, which are monotonic.
uint16_t nearest_f16(double magnitude) {
  int low = 0;
  int high = 0x7bff;
  if (magnitude >= f16_value(0x7bff)) return 0x7bff;
  while (high - low > 1) {
    const int middle = (low + high) / 2;
    (f16_value(static_cast<uint16_t>(middle)) <= magnitude ? low : high) = middle;
  }
  const double below = magnitude - f16_value(static_cast<uint16_t>(low));
  const double above = f16_value(static_cast<uint16_t>(high)) - magnitude;
  if (below == above) return static_cast<uint16_t>((low & 1) == 0 ? low : high);
  return static_cast<uint16_t>(below < above ? low : high);
}

void expect_nearest(float value) {
  const uint16_t sign = std::signbit(value) ? 0x8000 : 0;
  const uint16_t expected = static_cast<uint16_t>(nearest_f16(std::fabs(static_cast<double>(value))) | sign);
  ASSERT_EQ(f32_to_f16_saturate(value), expected) << std::hexfloat << value;
}

TEST(Half, EveryCodeHasTheValueOfTheFormat) {
  for (uint32_t code = 0; code < 0x10000; ++code) {
    const auto h = static_cast<uint16_t>(code);
    const float value = f16_to_f32(h);
    if (is_finite_f16(h)) {
      ASSERT_EQ(static_cast<double>(value), f16_value(h)) << code;
      ASSERT_EQ(std::signbit(value), code >= 0x8000) << code;
    } else if ((h & 0x3ff) == 0) {
      ASSERT_EQ(value, code >= 0x8000 ? -INFINITY : INFINITY);
    } else {
      ASSERT_TRUE(std::isnan(value)) << code;
    }
  }
}

TEST(Half, EveryCodeSurvivesTheRoundTrip) {
  for (uint32_t code = 0; code < 0x10000; ++code) {
    const auto h = static_cast<uint16_t>(code);
    const uint16_t back = f32_to_f16_saturate(f16_to_f32(h));
    if (is_finite_f16(h)) {
      ASSERT_EQ(back, h);
    } else if ((h & 0x3ff) == 0) {
      ASSERT_EQ(back, (h & 0x8000) | 0x7bff);  // infinity saturates
    } else {
      ASSERT_TRUE(std::isnan(f16_to_f32(back))) << code;
    }
  }
}

TEST(Half, RoundsToTheNearestWithTiesToEven) {
  for (uint32_t code = 0; code < 0x7bff; ++code) {
    const double low = f16_value(static_cast<uint16_t>(code));
    const double high = f16_value(static_cast<uint16_t>(code + 1));
    const auto tie = static_cast<float>((low + high) / 2);  // exact: one bit more than binary16
    ASSERT_EQ(static_cast<double>(tie), (low + high) / 2);
    for (const float value : {tie, std::nextafterf(tie, 0.0f), std::nextafterf(tie, INFINITY)}) {
      expect_nearest(value);
      expect_nearest(-value);
    }
  }
  std::mt19937 random(7);
  for (int i = 0; i < 1'000'000; ++i) {
    const float value = std::bit_cast<float>(static_cast<uint32_t>(random()));
    if (!std::isnan(value)) expect_nearest(value);
  }
}

TEST(Half, SaturatesInsteadOfOverflowing) {
  EXPECT_EQ(f32_to_f16_saturate(65504.0f), 0x7bff);
  EXPECT_EQ(f32_to_f16_saturate(65519.996f), 0x7bff);
  EXPECT_EQ(f32_to_f16_saturate(65520.0f), 0x7bff);
  EXPECT_EQ(f32_to_f16_saturate(-1e30f), 0xfbff);
  EXPECT_EQ(f32_to_f16_saturate(INFINITY), 0x7bff);
  EXPECT_EQ(f32_to_f16_saturate(-INFINITY), 0xfbff);
}

TEST(Half, FlushesOnlyWhatRoundsToZero) {
  const float half_step = std::ldexp(1.0f, -25);  // halfway to the smallest subnormal: a tie, zero is even
  EXPECT_EQ(f32_to_f16_saturate(half_step), 0);
  EXPECT_EQ(f32_to_f16_saturate(-half_step), 0x8000);
  EXPECT_EQ(f32_to_f16_saturate(std::nextafterf(half_step, 1.0f)), 1);
  EXPECT_EQ(f32_to_f16_saturate(std::numeric_limits<float>::denorm_min()), 0);
}

TEST(Half, EveryBf16SurvivesTheRoundTrip) {
  for (uint32_t code = 0; code < 0x10000; ++code) {
    const auto b = static_cast<uint16_t>(code);
    const float value = bf16_to_f32(b);
    if (std::isnan(value)) {
      ASSERT_TRUE(std::isnan(bf16_to_f32(f32_to_bf16(value))));
    } else {
      ASSERT_EQ(f32_to_bf16(value), b);
    }
  }
}

TEST(Half, Bf16RoundsToTheNearestWithTiesToEven) {
  for (uint32_t code = 0; code < 0x7f80; ++code) {
    const uint32_t tie = (code << 16) | 0x8000u;
    const auto up = static_cast<uint16_t>(code + 1);
    ASSERT_EQ(f32_to_bf16(std::bit_cast<float>(tie)), (code & 1) != 0 ? up : code);
    ASSERT_EQ(f32_to_bf16(std::bit_cast<float>(tie - 1)), code);
    ASSERT_EQ(f32_to_bf16(std::bit_cast<float>(tie + 1)), up);
  }
  // A NaN whose payload lies only in the low bits stays a NaN.
  EXPECT_TRUE(std::isnan(bf16_to_f32(f32_to_bf16(std::bit_cast<float>(0x7f800001u)))));
  EXPECT_EQ(f32_to_bf16(std::numeric_limits<float>::max()), 0x7f80);  // rounds to infinity, as the format says
}

}  // namespace
}  // namespace llorch
