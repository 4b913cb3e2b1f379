// The sampler against a plain one that sorts, against softmax in double, and against the generator's published vectors.
#include "sampling/sampler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <set>

namespace llorch {
namespace {

__extension__ using Wide = unsigned __int128;
constexpr float kInfinity = std::numeric_limits<float>::infinity();

// The rules of sampling.h again, read from its header comment: a full sort, wide integers, containers.
int32_t plain_sample(std::vector<float> logits, const SamplingParams& p, const std::vector<int32_t>& history,
                     uint32_t index) {
  if (p.repetition_penalty != 0 && p.repetition_penalty != 1)
    for (const int32_t id : std::set<int32_t>(history.begin(), history.end())) {
      float& l = logits[static_cast<size_t>(id)];
      if (std::isfinite(l))
        l = std::clamp(l > 0 ? l / p.repetition_penalty : l * p.repetition_penalty, -FLT_MAX, FLT_MAX);
    }
  for (const float l : logits)
    if (std::isnan(l)) return kNoToken;
  std::vector<uint32_t> order(logits.size());
  for (uint32_t i = 0; i < order.size(); ++i) order[i] = i;
  std::stable_sort(order.begin(), order.end(), [&](uint32_t a, uint32_t b) { return logits[a] > logits[b]; });
  const float max = logits[order[0]];
  if (!std::isfinite(max)) return kNoToken;
  if (p.temperature == 0) return static_cast<int32_t>(order[0]);
  if (p.top_k > 0 && p.top_k < order.size()) order.resize(p.top_k);
  const auto weight = [&](uint32_t id) {
    return static_cast<uint64_t>(std::ldexp(exp_f32((logits[id] - max) / p.temperature), 40));
  };
  const auto share = [](float fraction, Wide sum) {
    const Wide f = static_cast<Wide>(std::ldexp(static_cast<double>(fraction), 32));
    return (f * sum + 0xffffffffu) >> 32;
  };
  Wide sum = 0;
  for (const uint32_t id : order) sum += weight(id);
  if (p.top_p < 1) {
    const Wide target = std::max<Wide>(1, share(p.top_p, sum));
    size_t n = 0;
    for (Wide prefix = 0; prefix < target; ++n) prefix += weight(order[n]);
    order.resize(n);
  }
  const Wide least = share(p.min_p, weight(order[0]));
  std::erase_if(order, [&](uint32_t id) { return weight(id) < least; });
  std::sort(order.begin(), order.end());
  sum = 0;
  for (const uint32_t id : order) sum += weight(id);
  const uint64_t r = static_cast<uint64_t>((Wide{random_bits(p.seed, index)} * sum) >> 64);
  Wide running = 0;
  for (const uint32_t id : order)
    if ((running += weight(id)) > r) return static_cast<int32_t>(id);
  return kNoToken;
}

TEST(Philox, GivesThePublishedNumbers) {  // Random123, kat_vectors
  const auto expect = [](Philox4x32 counter, uint32_t key0, uint32_t key1, Philox4x32 expected) {
    const Philox4x32 got = philox4x32_10(counter, key0, key1);
    for (int i = 0; i < 4; ++i) EXPECT_EQ(got.v[i], expected.v[i]);
  };
  expect({{0, 0, 0, 0}}, 0, 0, {{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}});
  expect({{~0u, ~0u, ~0u, ~0u}}, ~0u, ~0u, {{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}});
  expect({{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}}, 0xa4093822, 0x299f31d0,
         {{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}});
  EXPECT_EQ(random_bits(0, 0), 0xe169c58d6627e8d5u);
}

TEST(Sampler, IntegerPiecesAreExact) {
  std::mt19937_64 random(3);
  for (int i = 0; i < 10000; ++i) {
    const uint64_t a = random() >> random() % 64, b = random() >> random() % 64;
    ASSERT_EQ(sampling_detail::multiply_high(a, b), static_cast<uint64_t>((Wide{a} * b) >> 64));
    const float f = static_cast<float>(random() >> 40) / 16777216.0f;
    const Wide scaled = static_cast<Wide>(std::ldexp(static_cast<double>(f), 32));
    ASSERT_EQ(sampling_detail::share(f, b >> 1), static_cast<uint64_t>((scaled * (b >> 1) + 0xffffffffu) >> 32));
  }
  EXPECT_EQ(sampling_detail::share(1.0f, (uint64_t{1} << 63) - 1), (uint64_t{1} << 63) - 1);
}

TEST(Sampler, EqualsThePlainOneOnRandomLogits) {
  std::mt19937 random(7);
  const auto pick = [&](std::initializer_list<float> values) { return *(values.begin() + random() % values.size()); };
  std::normal_distribution<float> normal(0, 1);
  for (int round = 0; round < 3000; ++round) {
    const uint32_t vocab = 1 + static_cast<uint32_t>(random() % (round % 50 == 0 ? 5000 : 300));
    const float spread = pick({0.0f, 0.5f, 3.0f, 20.0f});
    const float grid = pick({0.0f, 1.0f, 4.0f});  // a coarse grid makes ties
    std::vector<float> logits(vocab);
    for (float& l : logits) {
      l = normal(random) * spread;
      if (grid > 0) l = std::round(l * grid) / grid;
      if (random() % 20 == 0) l = pick({0.0f, -0.0f, -kInfinity, -1e30f});
    }
    std::vector<int32_t> history(random() % 20);
    for (int32_t& id : history) id = static_cast<int32_t>(random() % vocab);
    SamplingParams p;
    p.temperature = pick({0.0f, 1e-6f, 0.1f, 0.7f, 1.0f, 2.0f});
    p.top_k = static_cast<uint32_t>(pick({0, 1, 2, 40, 1000}));
    p.top_p = pick({0.0f, 1e-9f, 0.25f, 0.3f, 0.5f, 0.9f, 0.999f, 1.0f, 1.0f});
    p.min_p = pick({0.0f, 0.0f, 1e-8f, 0.05f, 0.5f, 1.0f});
    p.repetition_penalty = pick({0.0f, 1.0f, 1.3f, 0.5f, 2.0f, 1e-40f});
    p.seed = random();
    Sampler sampler(vocab);
    for (uint32_t index = 0; index < 5; ++index)
      ASSERT_EQ(sampler.sample(logits, p, history, index), plain_sample(logits, p, history, index))
          << "round " << round;
  }
}

TEST(Sampler, DrawsByTheSoftmaxOfTheTemperature) {
  const std::vector<float> logits{2.0f, -1.0f, 0.5f, 1.9f, -8.0f, 0.0f};
  for (const float temperature : {0.5f, 1.0f, 2.0f}) {
    SamplingParams p;
    p.temperature = temperature;
    Sampler sampler(6);
    constexpr uint32_t kDraws = 200000;
    std::vector<double> counts(6), expected(6);
    for (uint32_t i = 0; i < kDraws; ++i) ++counts[static_cast<size_t>(sampler.sample(logits, p, {}, i))];
    double sum = 0;
    for (size_t i = 0; i < 6; ++i) sum += expected[i] = std::exp(static_cast<double>(logits[i] / temperature));
    double chi2 = 0;
    for (size_t i = 0; i < 6; ++i) {
      expected[i] *= kDraws / sum;
      if (expected[i] > 5) chi2 += (counts[i] - expected[i]) * (counts[i] - expected[i]) / expected[i];
    }
    EXPECT_LT(chi2, 20.5);  // 0.1 % of 5 degrees of freedom
  }
}

TEST(Sampler, FiltersKeepWhatTheySay) {
  const std::vector<float> logits{1.0f, 3.0f, 3.0f, 2.0f, 0.0f};  // weights about .05 .38 .38 .14 .02 .. of the sum
  const auto kept = [&](auto change) {
    SamplingParams p;
    change(p);
    Sampler sampler(5);
    std::set<int32_t> ids;
    for (uint32_t i = 0; i < 2000; ++i) ids.insert(sampler.sample(logits, p, {}, i));
    return ids;
  };
  using Ids = std::set<int32_t>;
  EXPECT_EQ(kept([](auto&) {}), (Ids{0, 1, 2, 3, 4}));
  EXPECT_EQ(kept([](auto& p) { p.temperature = 0; }), Ids{1});
  EXPECT_EQ(kept([](auto& p) { p.temperature = 1e-6f; }), (Ids{1, 2}));
  EXPECT_EQ(kept([](auto& p) { p.top_k = 1; }), Ids{1});  // ties: the lower id
  EXPECT_EQ(kept([](auto& p) { p.top_k = 3; }), (Ids{1, 2, 3}));
  EXPECT_EQ(kept([](auto& p) { p.top_p = 0; }), Ids{1});
  EXPECT_EQ(kept([](auto& p) { p.top_p = 0.5f; }), (Ids{1, 2}));
  EXPECT_EQ(kept([](auto& p) { p.top_p = 0.9f; }), (Ids{1, 2, 3}));
  EXPECT_EQ(kept([](auto& p) { p.min_p = 0.3f; }), (Ids{1, 2, 3}));  // e^-1 of the largest is kept
  EXPECT_EQ(kept([](auto& p) { p.min_p = 1; }), (Ids{1, 2}));
}

TEST(Sampler, PenalizesEachIdOfTheHistoryOnce) {
  const std::vector<float> logits{4.0f, 3.0f, -1.0f, -1.5f};
  const std::vector<int32_t> history{0, 0, 0, 2, 2};
  SamplingParams p;
  p.temperature = 0;
  p.repetition_penalty = 1.25f;  // 4 / 1.25 = 3.2: once is not enough
  EXPECT_EQ(Sampler(4).sample(logits, p, history, 0), 0);
  p.repetition_penalty = 2;
  EXPECT_EQ(Sampler(4).sample(logits, p, history, 0), 1);
  EXPECT_EQ(Sampler(2).sample(std::vector<float>{-1.0f, -1.5f}, p, std::vector<int32_t>{0}, 0), 1);
}

TEST(Sampler, NeverSamplesFromFaultyLogits) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  for (const float temperature : {0.0f, 1.0f})
    for (const std::vector<float>& logits : {std::vector<float>{1, nan, 2},
                                             {nan, 1, 2},
                                             {1, 2, nan},
                                             {nan, nan, nan},
                                             {1, kInfinity, 2},
                                             {-kInfinity, -kInfinity, -kInfinity}}) {
      SamplingParams p;
      p.temperature = temperature;
      EXPECT_EQ(Sampler(3).sample(logits, p, {}, 0), kNoToken);
    }
  SamplingParams p;
  p.temperature = std::numeric_limits<float>::denorm_min();
  EXPECT_EQ(Sampler(3).sample(std::vector<float>{-FLT_MAX, FLT_MAX, -kInfinity}, p, {}, 0), 1);
}

}  // namespace
}  // namespace llorch
