// What the kernel makes of rows of logits is what the host's sampler makes of them: fault, hash and token, for all
// parameters and lengths, with ties, zeros of both signs, NaN and infinities.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>

#include "backend/cuda/cuda_backend.h"
#include "backend/cuda/sampling_block.h"
#include "backends_under_test.h"
#include "sampling/sampler.h"

namespace llorch::test {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr uint32_t kRows = 16;

std::vector<float> random_row(std::mt19937& random, uint32_t vocab) {
  std::normal_distribution<float> normal(0.0f, 3.0f);
  std::vector<float> row(vocab);
  const auto kind = random() % 6;
  for (float& x : row) {
    x = normal(random);
    if (kind == 1) x = std::round(x);           // ties, and zeros
    if (kind == 2) x = std::round(x) * -0.0f;   // all zero, of both signs
    if (kind == 3 && random() % 3 != 0) x = 2;  // a tie of most
    if (kind == 4) x *= 1e30f;
  }
  if (random() % 8 == 0) row[random() % vocab] = random() % 2 == 0 ? NAN : kInfinity;
  if (random() % 16 == 0) row[random() % vocab] = -kInfinity;
  if (random() % 16 == 0) row.assign(vocab, row[0]);
  return row;
}

template <typename T>
T one_of(std::mt19937& random, std::initializer_list<T> values) {
  return values.begin()[random() % values.size()];
}

SamplingParams random_params(std::mt19937& random, uint32_t vocab) {
  SamplingParams p;
  p.temperature = one_of(random, {0.0f, 0.7f, 1.0f, 1e-6f, 0.05f, 3.0f, 1e30f});
  p.top_k = one_of(random, {0u, 0u, 1u, 2u, 40u, vocab / 2, vocab, vocab + 1});
  p.top_p = one_of(random, {1.0f, 1.0f, 0.95f, 0.5f, 0.0f, 0.9999999f});
  p.min_p = one_of(random, {0.0f, 0.0f, 0.05f, 1.0f});
  p.repetition_penalty = one_of(random, {1.0f, 1.0f, 0.0f, 1.3f, 0.5f, 1e-30f});
  p.seed = uint64_t{random()} << 32 | random();
  return p;
}

// Rows with logits of their own, sampled `draws` times.
void compare(const cuda::Stream& stream, uint32_t vocab, uint32_t draws) {
  std::mt19937 random(vocab);
  std::vector<float> table;
  for (uint32_t i = 0; i < kRows; ++i) {
    const std::vector<float> row = random_row(random, vocab);
    table.insert(table.end(), row.begin(), row.end());
  }
  cuda::DeviceArray<float> logits(kActivationMemory, table.size());
  stream.to_device(logits.data(), table.data(), table.size());
  Plan plan;
  plan.vocab = vocab;
  plan.rope.context = 32;
  cuda::SamplingBlock block(plan, {.kv = {}, .max_logit_rows = kRows});
  Sampler sampler(vocab);
  for (uint32_t draw = 0; draw < draws; ++draw) {
    std::vector<std::vector<int32_t>> histories(kRows);
    std::vector<RowSampling> rows;
    for (uint32_t i = 0; i < kRows; ++i) {
      for (auto n = random() % 20; n > 0; --n) histories[i].push_back(static_cast<int32_t>(random() % vocab));
      rows.push_back({random_params(random, vocab), histories[i], draw});
    }
    block.fill(rows);
    block.send(stream);
    cuda::sample({stream.get()}, block.args(logits.data()), kRows);
    block.ask_for_results(stream);
    stream.synchronize();
    const std::span<const SampledRow> sampled = block.results();
    ASSERT_EQ(sampled.size(), kRows);
    for (uint32_t i = 0; i < kRows; ++i) {
      const SampledRow expected = sampler.sample_row(std::span(table).subspan(size_t{i} * vocab, vocab), rows[i]);
      const SamplingParams& p = rows[i].params;
      const std::string context =
          fmt::format("vocab {} draw {} row {}: T {} top_k {} top_p {} min_p {} penalty {}", vocab, draw, i,
                      p.temperature, p.top_k, p.top_p, p.min_p, p.repetition_penalty);
      ASSERT_EQ(sampled[i].hash, expected.hash) << context;
      ASSERT_EQ(sampled[i].fault, expected.fault) << context;
      ASSERT_EQ(sampled[i].token, expected.token) << context;
    }
  }
}

TEST(CudaSampling, IsTheHostsForAllParametersAndLengths) {
  LLORCH_SKIP_WITHOUT_BACKEND();
  const bool is_short = is_short_set();
  for (size_t device = 0; device < backends_under_test().size(); ++device) {
    SCOPED_TRACE(device);
    cuda::use_device(static_cast<int>(device));
    const cuda::Stream stream;
    for (const uint32_t vocab : {1u, 31u, 32u, 33u, 63u, 64u, 65u, 1000u, 3520u}) compare(stream, vocab, 6);
    if (is_short && device > 0) continue;
    for (const uint32_t vocab : {32000u, 32001u, 128256u}) compare(stream, vocab, is_short ? 2 : 40);
  }
}

// Every path of the hash: 4 bytes to several blocks, with any rest; vocabularies that are no multiple of 4 put rows at
// any alignment.
TEST(CudaSampling, HashesRowsOfEveryLength) {
  LLORCH_SKIP_WITHOUT_BACKEND();
  cuda::use_device(0);
  const cuda::Stream stream;
  for (uint32_t vocab = 1; vocab < 140; ++vocab) compare(stream, vocab, 1);
  for (const uint32_t vocab : {255u, 256u, 257u, 511u, 512u, 513u, 529u, 767u, 769u, 1024u, 2047u})
    compare(stream, vocab, 1);
  if (is_short_set()) return;
  for (const uint32_t vocab : {131071u, 131072u, 131073u, 131088u, 131089u, 262145u, 1000003u})
    compare(stream, vocab, 2);  // more than one round of blocks
}

TEST(CudaSampling, WhatDoesNotFitIsRefused) {
  LLORCH_SKIP_WITHOUT_BACKEND();
  cuda::use_device(0);
  Plan plan;
  plan.vocab = 8;
  plan.rope.context = 16;
  cuda::SamplingBlock block(plan, {.kv = {}, .max_logit_rows = 2});
  const std::vector<int32_t> history(17, 1), beyond = {8};
  RowSampling row;
  row.history = history;
  EXPECT_NO_THROW(block.fill({&row, 1}));  // nobody reads it
  row.params.repetition_penalty = 1.5f;
  EXPECT_THROW(block.fill({&row, 1}), BugError);
  row.history = beyond;
  EXPECT_THROW(block.fill({&row, 1}), BugError);
  EXPECT_THROW(block.fill(std::vector<RowSampling>(3)), BugError);
}

}  // namespace
}  // namespace llorch::test
