#include "backend/cuda/sample_weight.h"

#include <gtest/gtest.h>

#include <limits>
#include <random>

#include "sampling/sample_token.h"

namespace llorch::cuda {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// Some differences near 0, near the last weight that is not 0, and anywhere.
void compare(float temperature, std::mt19937& random, int n) {
  const Weigher weigh(temperature);
  const auto expect_equal = [&](float d) {
    ASSERT_EQ(weigh(d), sampling_detail::weight_of(d, 0.0f, temperature)) << d << " / " << temperature;
  };
  for (const float d : {0.0f, -0.0f, -FLT_MAX, -kInfinity, -FLT_MIN, -std::numeric_limits<float>::denorm_min()})
    expect_equal(d);
  std::uniform_real_distribution<float> quotient(-30.0f, 0.0f), near(-28.1f, -27.6f), exponent(-140.0f, 127.9f);
  for (int i = 0; i < n; ++i) {
    expect_equal(quotient(random) * temperature);
    expect_equal(near(random) * temperature);
    expect_equal(-std::exp2(exponent(random)));
    expect_equal(-temperature * std::exp2(-std::abs(exponent(random)) / 4));
  }
}

TEST(SampleWeight, IsTheHosts) {
  std::mt19937 random(1);
  for (const float temperature : {0.7f, 1.0f, 0.1f, 2.0f, 1e-6f, 1e30f, 0x1.fffffep-1f, 0x1.000002p0f, 0x1p-32f,
                                  0x1.fffffep-33f, 0x1p32f, 0x1.000002p32f, FLT_MAX, FLT_MIN, 0x1p-149f, 0x1.8p-140f})
    compare(temperature, random, 20000);
  std::uniform_real_distribution<float> usual(0.0f, 2.0f), exponent(-149.0f, 127.9f);
  for (int i = 0; i < 1000; ++i) {
    compare(std::max(usual(random), 0x1p-100f), random, 100);
    compare(std::exp2(exponent(random)), random, 100);
  }
}

}  // namespace
}  // namespace llorch::cuda
