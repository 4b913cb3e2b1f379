// What the check on logits sees.
#include "sampling/tripwire.h"

#include <gtest/gtest.h>

#include <bit>
#include <cfloat>
#include <cmath>
#include <limits>
#include <vector>

namespace llorch {
namespace {

TEST(CheckLogits, FindsOneFaultAnywhere) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  const float negative_nan = std::bit_cast<float>(0xffc00001u);
  for (const size_t n : {2u, 3u, 8u, 31u, 100u})
    for (size_t at = 0; at < n; ++at) {
      std::vector<float> logits(n, 1.5f);
      logits[at] = -2.0f;
      EXPECT_EQ(check_logits(logits), LogitsFault::kNone);
      for (const float largest : {FLT_MAX, -FLT_MAX, 1e-42f}) {
        logits[at] = largest;
        EXPECT_EQ(check_logits(logits), LogitsFault::kNone);
      }
      for (const float infinity : {kInfinity, -kInfinity}) {
        logits[at] = infinity;
        EXPECT_EQ(check_logits(logits), LogitsFault::kInfinite);
      }
      logits[(at + 1) % n] = NAN;  // NaN is the worse of the two
      EXPECT_EQ(check_logits(logits), LogitsFault::kNan);
      logits.assign(n, 1.5f);
      logits[at] = negative_nan;
      EXPECT_EQ(check_logits(logits), LogitsFault::kNan);
    }
}

TEST(CheckLogits, EqualOnesAreAFaultUnlessThereIsOnlyOne) {
  EXPECT_EQ(check_logits(std::vector<float>(7, 1.5f)), LogitsFault::kAllEqual);
  EXPECT_EQ(check_logits(std::vector<float>{0.0f, -0.0f, 0.0f}), LogitsFault::kAllEqual);
  EXPECT_EQ(check_logits(std::vector<float>{-1.0f, 1.0f}), LogitsFault::kNone);
  EXPECT_EQ(check_logits(std::vector<float>{1.0f}), LogitsFault::kNone);
  EXPECT_EQ(check_logits(std::vector<float>(5, NAN)), LogitsFault::kNan);
}

}  // namespace
}  // namespace llorch
