#include "base/exact_math.h"

#include <gtest/gtest.h>

#include <cmath>

namespace llorch {
namespace {

TEST(ExactMath, AgreesWithTheCLibrary) {
  for (double x = -40.0; x < 40.0; x += 0.00917) EXPECT_NEAR(exact::exp(x) / std::exp(x), 1.0, 5e-16) << x;
  for (double x = 1e-6; x < 1e7; x *= 1.0017)
    EXPECT_NEAR(exact::log(x), std::log(x), 4e-16 * (1 + std::abs(std::log(x))));
  for (double x = -3e5; x < 3e5; x += 0.7531) {
    EXPECT_NEAR(exact::sin(x), std::sin(x), 1e-15) << x;
    EXPECT_NEAR(exact::cos(x), std::cos(x), 1e-15) << x;
  }
  EXPECT_NEAR(exact::pow(500000.0, -126.0 / 128.0) / std::pow(500000.0, -126.0 / 128.0), 1.0, 1e-14);
}

TEST(ExactMath, ExactWhereItMustBe) {
  EXPECT_EQ(exact::exp(0.0), 1.0);
  EXPECT_EQ(exact::log(1.0), 0.0);
  EXPECT_EQ(exact::sin(0.0), 0.0);
  EXPECT_EQ(exact::cos(0.0), 1.0);
}

}  // namespace
}  // namespace llorch
