#include "base/exp.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace llorch {
namespace {

TEST(Exp, RelativeErrorAgainstDouble) {
  double worst = 0;
  for (float x = -64.0f; x <= 88.0f; x += 1.3e-4f) {
    const double want = std::exp(static_cast<double>(x));
    worst = std::max(worst, std::abs(exp_f32(x) - want) / want);
  }
  EXPECT_LT(worst, 1.2e-7);
}

TEST(Exp, EdgesAreStated) {
  EXPECT_EQ(exp_f32(0.0f), 1.0f);
  EXPECT_EQ(exp_f32(-0.0f), 1.0f);
  EXPECT_EQ(exp_f32(-64.01f), 0.0f);
  EXPECT_GT(exp_f32(-64.0f), 0.0f);
  EXPECT_EQ(exp_f32(-std::numeric_limits<float>::infinity()), 0.0f);
  EXPECT_EQ(exp_f32(std::numeric_limits<float>::infinity()), std::numeric_limits<float>::infinity());
  EXPECT_EQ(exp_f32(89.0f), std::numeric_limits<float>::infinity());
  EXPECT_TRUE(std::isfinite(exp_f32(88.7f)));
  EXPECT_TRUE(std::isnan(exp_f32(std::numeric_limits<float>::quiet_NaN())));
}

TEST(Silu, LimitsAndNan) {
  EXPECT_EQ(silu_f32(0.0f), 0.0f);
  EXPECT_EQ(silu_f32(100.0f), 100.0f);
  EXPECT_EQ(silu_f32(-100.0f), 0.0f);  // -100 / infinity
  EXPECT_TRUE(std::isnan(silu_f32(std::numeric_limits<float>::quiet_NaN())));
}

}  // namespace
}  // namespace llorch
