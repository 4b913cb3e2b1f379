// Hashes of logits see every bit and the order of rows.
#include "sampling/logits_hash.h"

#include <gtest/gtest.h>

#include <vector>

namespace llorch {
namespace {

TEST(LogitsHash, SeesEveryBitAndTheOrderOfRows) {
  const std::vector<float> rows = {1.0f, -2.0f, 0.0f, 3.0f};
  const auto hash_of = [](std::initializer_list<std::span<const float>> list) {
    LogitsHash hash;
    for (const auto row : list) hash.add(hash_of_row(row));
    return hash.value();
  };
  const std::span<const float> all(rows);
  EXPECT_NE(hash_of({all.first(2), all.last(2)}), hash_of({all}));
  EXPECT_NE(hash_of({all.last(2), all.first(2)}), hash_of({all.first(2), all.last(2)}));
  EXPECT_EQ(hash_of({all}), hash_of({all}));
  std::vector<float> negative_zero = rows;
  negative_zero[2] = -0.0f;
  EXPECT_NE(hash_of({negative_zero}), hash_of({all}));
}

// What bundles hold, so that a change of the definition does not go unseen.
TEST(LogitsHash, IsWhatItWas) {
  LogitsHash hash;
  EXPECT_EQ(hash.value(), 0u);
  hash.add(hash_of_row(std::vector<float>{1.0f, -2.0f}));
  hash.add(hash_of_row(std::vector<float>{0.5f, 3.0f}));
  EXPECT_EQ(hash.value(), 0x3f291e2690d8d918u);
}

}  // namespace
}  // namespace llorch
