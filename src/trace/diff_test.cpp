#include "trace/diff.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace llorch {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInf = std::numeric_limits<float>::infinity();

StepDiff diff(const std::vector<float>& a, const std::vector<float>& b, uint32_t width, double bound = 0.0) {
  std::vector<uint32_t> positions(a.size() / width);
  for (uint32_t r = 0; r < positions.size(); ++r) positions[r] = 10 + r;
  const TracedStep what{"step", "linear", "f16", "its line"};
  return diff_step({what, positions, width, a, b, true, bound});
}

TEST(Diff, EqualBitsAndAnyTwoNansAreEqual) {
  const StepDiff d = diff({1, -kNan, kInf, -0.0f}, {1, kNan, kInf, -0.0f}, 2);
  EXPECT_TRUE(d.equal && d.within_bound);
  EXPECT_EQ(d.max_abs, 0.0);
  EXPECT_EQ(d.nmse, 0.0);
  EXPECT_DOUBLE_EQ(d.cosine, 1.0);
  EXPECT_EQ(d.argmax_agree, 2u);
  ASSERT_TRUE(d.first_nan.has_value());  // said, though it is on both sides
  EXPECT_EQ(d.first_nan->position, 10u);
  EXPECT_EQ(d.first_nan->element, 1u);
}

TEST(Diff, TheSignOfAZeroIsADifferenceOfOneUlpAndNoSize) {
  const StepDiff d = diff({1, 0.0f}, {1, -0.0f}, 2);
  EXPECT_FALSE(d.equal);
  EXPECT_FALSE(d.within_bound);
  EXPECT_EQ(d.max_abs, 0.0);
  EXPECT_EQ(d.ulp_median, 1u);
  EXPECT_EQ(d.first_difference->element, 1u);
}

TEST(Diff, MeasuresAreThoseOfTheirFormulas) {
  const StepDiff d = diff({1, 2, 3, 8}, {1, 2, 4, 6}, 2);
  EXPECT_FALSE(d.equal);
  EXPECT_EQ(d.rows, 2u);
  EXPECT_EQ(d.first_difference->position, 11u);
  EXPECT_EQ(d.first_difference->element, 0u);
  EXPECT_EQ(d.first_difference->a, 3.0f);
  EXPECT_EQ(d.first_difference->b, 4.0f);
  EXPECT_EQ(d.max_abs, 2.0);
  EXPECT_DOUBLE_EQ(d.nmse, 5.0 / 57.0);
  EXPECT_DOUBLE_EQ(d.cosine, 65.0 / std::sqrt(78.0 * 57.0));
  EXPECT_EQ(d.nmse_by_row.size(), 2u);
  EXPECT_EQ(d.nmse_by_row[0], 0.0);
  EXPECT_DOUBLE_EQ(d.nmse_by_row[1], 5.0 / 52.0);
  EXPECT_EQ(d.argmax_agree, 2u);
  EXPECT_EQ(diff({1, 2, 3, 8}, {1, 2, 6, 4}, 2).argmax_agree, 1u);
  EXPECT_FALSE(d.first_nan.has_value());
}

TEST(Diff, UlpsCountTheFloatsBetween) {
  const float up = std::nextafter(1.0f, 2.0f);
  EXPECT_EQ(diff({1, 5}, {up, 5}, 2).ulp_median, 1u);
  EXPECT_EQ(diff({-1}, {1}, 1).ulp_median, 2u * 0x3f800000u + 1);
  EXPECT_EQ(diff({1, 1, 1}, {up, std::nextafter(up, 2.0f), 2}, 3).ulp_median, 2u);
}

TEST(Diff, ANanOrAnInfinityOnOneSideIsOutsideAnyBound) {
  for (const float bad : {kNan, kInf}) {
    for (const bool on_a : {true, false}) {
      const StepDiff d = on_a ? diff({bad, 1}, {1, 1}, 2, 1e30) : diff({1, 1}, {bad, 1}, 2, 1e30);
      EXPECT_FALSE(d.within_bound);
      EXPECT_EQ(d.max_abs, kInf);
      EXPECT_EQ(d.nmse, kInf);
    }
  }
  EXPECT_EQ(diff({kInf}, {-kInf}, 1).max_abs, kInf);
  EXPECT_EQ(diff({1}, {0}, 1).nmse, kInf);
}

TEST(Diff, BoundsAreOfTheNmse) {
  const std::vector<float> a = {1.001f, 1}, b = {1, 1};
  const double nmse = diff(a, b, 2).nmse;
  EXPECT_TRUE(diff(a, b, 2, nmse).within_bound);
  EXPECT_FALSE(diff(a, b, 2, nmse / 2).within_bound);
  EXPECT_FALSE(diff(a, b, 2).within_bound);
}

TEST(Diff, TheFirstStepOutsideIsNamed) {
  std::vector<StepDiff> steps = {diff({1}, {1}, 1), diff({1}, {2}, 1), diff({1}, {3}, 1)};
  EXPECT_EQ(first_outside(steps), 1);
  EXPECT_EQ(first_outside(std::span(steps).first(1)), -1);
}

}  // namespace
}  // namespace llorch
