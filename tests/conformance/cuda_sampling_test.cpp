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

// How many multiprocessors the kernels are told of: few rows have as many blocks.
constexpr int kOne = 1, kMany = 132;

// Rows with logits of their own, sampled as often as they are compared.
class Table {
 public:
  Table(const cuda::Stream& stream, uint32_t vocab, const std::vector<std::vector<float>>& rows)
      : stream_(stream),
        vocab_(vocab),
        rows_(rows),
        logits_(kActivationMemory, rows.size() * vocab),
        device_half_(kActivationMemory, 1),
        block_(plan(vocab), options(rows.size())),
        sampler_(vocab) {
    for (size_t i = 0; i < rows_.size(); ++i) stream.to_device(logits_.data() + i * vocab, rows_[i].data(), vocab);
  }

  void compare(const std::vector<RowSampling>& rows, int n_multiprocessors) {
    half_ = 1 - half_;
    stream_.to_device(device_half_.data(), &half_, 1);
    block_.fill(rows, half_);
    block_.send(stream_);
    cuda::sample({stream_.get(), false, n_multiprocessors}, block_.args(logits_.data(), device_half_.data()),
                 static_cast<int32_t>(rows.size()));
    std::vector<int32_t> tokens(rows.size());
    stream_.to_host(tokens.data(), block_.last_tokens(), tokens.size());
    stream_.synchronize();
    const std::span<const SampledRow> sampled = block_.results(half_);
    ASSERT_EQ(sampled.size(), rows.size());
    for (size_t i = 0; i < rows.size(); ++i) {
      const SampledRow expected = sampler_.sample_row(rows_[i], rows[i]);
      const SamplingParams& p = rows[i].params;
      const std::string context =
          fmt::format("vocab {} index {} row {} of {}: T {} top_k {} top_p {} min_p {} penalty {}", vocab_,
                      rows[i].index, i, rows.size(), p.temperature, p.top_k, p.top_p, p.min_p, p.repetition_penalty);
      ASSERT_EQ(sampled[i].hash, expected.hash) << context;
      ASSERT_EQ(sampled[i].fault, expected.fault) << context;
      ASSERT_EQ(sampled[i].token, expected.token) << context;
      ASSERT_EQ(tokens[i], expected.token) << context;
    }
  }

 private:
  static Plan plan(uint32_t vocab) {
    Plan plan;
    plan.vocab = vocab;
    plan.rope.context = 32;
    return plan;
  }
  static CompileOptions options(size_t n_rows) {
    CompileOptions options;
    options.max_logit_rows = static_cast<uint32_t>(n_rows);
    return options;
  }

  const cuda::Stream& stream_;
  const uint32_t vocab_;
  const std::vector<std::vector<float>> rows_;
  cuda::DeviceArray<float> logits_;
  cuda::DeviceArray<uint32_t> device_half_;
  uint32_t half_ = 0;
  cuda::SamplingBlock block_;
  Sampler sampler_;
};

// Random rows and parameters.
void compare(const cuda::Stream& stream, uint32_t vocab, uint32_t draws, uint32_t n_rows = kRows,
             int n_multiprocessors = kOne) {
  std::mt19937 random(vocab);
  std::vector<std::vector<float>> logits(n_rows);
  for (std::vector<float>& row : logits) row = random_row(random, vocab);
  Table table(stream, vocab, logits);
  for (uint32_t draw = 0; draw < draws; ++draw) {
    std::vector<std::vector<int32_t>> histories(n_rows);
    std::vector<RowSampling> rows;
    for (uint32_t i = 0; i < n_rows; ++i) {
      for (auto n = random() % 20; n > 0; --n) histories[i].push_back(static_cast<int32_t>(random() % vocab));
      rows.push_back({random_params(random, vocab), histories[i], draw});
    }
    table.compare(rows, n_multiprocessors);
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
    for (const uint32_t vocab : {1u, 5u, 4096u}) compare(stream, vocab, 2, 1, kMany);
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

// What one part of a row alone has, and what all have: each is drawn from with all filters, alone, so that a row has as
// many blocks as it can.
std::vector<std::vector<float>> rows_of_parts(uint32_t vocab) {
  std::mt19937 random(1);
  std::uniform_real_distribution<float> uniform(-1.0f, 1.0f);
  std::vector<std::vector<float>> rows(9, std::vector<float>(vocab));
  for (std::vector<float>& row : rows)
    for (float& x : row) x = uniform(random);
  rows[1].back() = NAN;
  rows[2][vocab / 2] = kInfinity;
  rows[3].assign(vocab, 0.25f);
  rows[4].assign(vocab, 0.25f);
  rows[4].back() = 0.125f;
  for (const uint32_t id : {vocab / 3, vocab / 2, vocab - 1}) rows[5][id] = 7.0f;  // a tie of the largest
  rows[6].back() = 100.0f;                                                         // nothing else has a weight
  for (uint32_t id = 0; id < vocab / 2; ++id) rows[7][id] = -100.0f;               // half of the parts have none
  for (float& x : rows[8]) x = std::copysign(0.0f, x);
  return rows;
}

TEST(CudaSampling, SpreadsARowOverBlocks) {
  LLORCH_SKIP_WITHOUT_BACKEND();
  const std::vector<int32_t> history = {0, 1, 2047, 2048, 4096, 4096};
  std::vector<SamplingParams> params(7);
  params[0].temperature = 0.0f;
  params[1].temperature = 0.7f;
  params[2].min_p = 0.3f;
  params[3].top_k = 50;
  params[4].top_p = 0.4f;
  params[5].repetition_penalty = 1.7f;
  params[6] = {.temperature = 1e30f, .min_p = 1.0f, .repetition_penalty = 0.5f};
  for (size_t device = 0; device < backends_under_test().size(); ++device) {
    SCOPED_TRACE(device);
    cuda::use_device(static_cast<int>(device));
    const cuda::Stream stream;
    for (const uint32_t vocab : {4097u, 12290u}) {
      for (const std::vector<float>& row : rows_of_parts(vocab)) {
        Table table(stream, vocab, {row});
        for (uint32_t i = 0; i < params.size(); ++i) table.compare({{params[i], history, i}}, kMany);
      }
    }
    compare(stream, 32000, 8, 1, kMany);
    compare(stream, 32001, 2, 3, kMany);
    compare(stream, 9001, 1, 40, kMany);
    if (is_short_set()) continue;
    for (const uint32_t vocab : {128256u, 131073u, 300001u}) compare(stream, vocab, 8, 1, kMany);
    for (const uint32_t n_rows : {32u, 66u}) compare(stream, 32000, 2, n_rows, kMany);
  }
}

TEST(CudaSampling, WhatDoesNotFitIsRefused) {
  LLORCH_SKIP_WITHOUT_BACKEND();
  cuda::use_device(0);
  Plan plan;
  plan.vocab = 8;
  plan.rope.context = 16;
  CompileOptions options;
  options.max_logit_rows = 2;
  cuda::SamplingBlock block(plan, options);
  const std::vector<int32_t> history(17, 1), beyond = {8};
  RowSampling row;
  row.history = history;
  EXPECT_NO_THROW(block.fill({&row, 1}, 0));  // nobody reads it
  row.params.repetition_penalty = 1.5f;
  EXPECT_THROW(block.fill({&row, 1}, 0), BugError);
  row.history = beyond;
  EXPECT_THROW(block.fill({&row, 1}, 0), BugError);
  EXPECT_THROW(block.fill(std::vector<RowSampling>(3), 0), BugError);
}

}  // namespace
}  // namespace llorch::test
