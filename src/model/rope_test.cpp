#include "model/rope.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "format/files_for_test.h"

namespace llorch {
namespace {

using testing::HasSubstr;

ModelConfig rope_config(uint32_t head_dim, double theta, RopeScaling scaling = {}) {
  ModelConfig c;
  c.head_dim = head_dim;
  c.rope_theta = theta;
  c.rope_scaling = scaling;
  return c;
}

struct Frequency {
  size_t index;
  double want;
};

// transformers computes in float32.
void expect_frequencies(const ModelConfig& c, const std::vector<Frequency>& want) {
  const std::vector<double> got = rope_frequencies(c, {});
  ASSERT_EQ(got.size(), c.head_dim / 2);
  for (const auto& [index, value] : want) EXPECT_NEAR(got[index] / value, 1.0, 1e-6) << index;
}

// The numbers are printed by tests/fixtures/make_rope_vectors.py (transformers 5.23.0).
TEST(RopeFrequencies, AreThoseOfTransformers) {
  expect_frequencies(rope_config(16, 1e4),
                     {{0, 1.0}, {1, 0.3162277638912201}, {3, 0.03162277862429619}, {7, 0.0003162277862429619}});
  RopeScaling linear{.kind = RopeScaling::Kind::kLinear, .factor = 4.0};
  expect_frequencies(rope_config(16, 1e4, linear), {{0, 0.25}, {1, 0.07905694097280502}, {7, 7.905694656074047e-05}});
  RopeScaling llama3{.kind = RopeScaling::Kind::kLlama3, .factor = 32.0, .original_context = 8192.0};
  expect_frequencies(rope_config(64, 5e5, llama3), {{0, 1.0},
                                                    {1, 0.663601279258728},
                                                    {13, 0.00483942124992609},
                                                    {14, 0.0032114461064338684},
                                                    {15, 0.0012905480107292533},  // the blend
                                                    {16, 0.000429556705057621},
                                                    {17, 9.708286233944818e-05},
                                                    {18, 1.9461638657958247e-05},
                                                    {31, 9.418306490260875e-08}});
  RopeScaling yarn{.kind = RopeScaling::Kind::kYarn, .factor = 4.0, .original_context = 4096.0};
  expect_frequencies(rope_config(32, 1e4, yarn), {{0, 1.0},
                                                  {5, 0.05623412877321243},
                                                  {6, 0.02823462337255478},  // the ramp
                                                  {8, 0.006785714067518711},
                                                  {11, 0.0006350998301059008},
                                                  {12, 0.0002500000118743628},
                                                  {15, 4.4456985051510856e-05}});
  RopeScaling betas{.kind = RopeScaling::Kind::kYarn,
                    .factor = 16.0,
                    .original_context = 4096.0,
                    .beta_fast = 24.0,
                    .beta_slow = 2.0};
  expect_frequencies(rope_config(32, 1e6, betas), {{3, 0.07498941570520401},
                                                   {4, 0.024211188778281212},
                                                   {5, 0.007084332872182131},
                                                   {6, 0.0016694507794454694},
                                                   {7, 0.00014821086369920522},
                                                   {15, 1.4821086969840436e-07}});
}

TEST(RopeFrequencies, FactorsOfTheFileDivide) {
  const std::vector<float> factors = {1.0f, 2.0f, 4.0f, 8.0f};
  const std::vector<double> plain = rope_frequencies(rope_config(8, 1e4), {});
  const std::vector<double> divided = rope_frequencies(rope_config(8, 1e4), factors);
  for (size_t i = 0; i < 4; ++i) EXPECT_EQ(divided[i], plain[i] / factors[i]);
  EXPECT_EQ(error_of([&] { rope_frequencies(rope_config(16, 1e4), factors); }),
            "rope_freqs.weight: expected 8 factors, got 4");
  for (const float bad : {0.0f, -1.0f, std::nanf("")})
    EXPECT_THAT(error_of([&] { rope_frequencies(rope_config(2, 1e4), std::vector<float>{bad}); }),
                HasSubstr("rope_freqs.weight: factor 0 is"));
}

// cos and sin of position * frequency in double, rounded once; YaRN's magnitude as transformers' attention_scaling.
TEST(RopeTable, HoldsRoundedCosinesAndSines) {
  RopeScaling yarn{.kind = RopeScaling::Kind::kYarn, .factor = 4.0, .original_context = 4096.0};
  RopeScaling given = yarn;
  given.attention_factor = 1.5;
  const std::pair<ModelConfig, double> kCases[] = {
      {rope_config(16, 1e4), 1.0}, {rope_config(32, 1e4, yarn), 1.138629436111989}, {rope_config(32, 1e4, given), 1.5}};
  for (const auto& [config, magnitude] : kCases) {
    const RopeTable table = make_rope_table(config, 3000, {});
    const std::vector<double> frequencies = rope_frequencies(config, {});
    ASSERT_EQ(table.context, 3000u);
    ASSERT_EQ(table.half_dim, config.head_dim / 2);
    ASSERT_EQ(table.cos.size(), size_t{3000} * table.half_dim);
    ASSERT_EQ(table.sin.size(), table.cos.size());
    for (const size_t position : {0, 1, 2, 77, 2999})
      for (size_t i = 0; i < table.half_dim; ++i) {
        const double angle = static_cast<double>(position) * frequencies[i];
        const size_t at = position * table.half_dim + i;
        EXPECT_NEAR(table.cos[at], std::cos(angle) * magnitude, 0x1p-23);
        EXPECT_NEAR(table.sin[at], std::sin(angle) * magnitude, 0x1p-23);
      }
  }
}

}  // namespace
}  // namespace llorch
