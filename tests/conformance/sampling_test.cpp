// Program::sample gives what the host's sampler makes of run()'s logits, on every backend: launched by itself, recorded
// and replayed, among other rows, with histories that grow.
#include <gtest/gtest.h>

#include "backends_under_test.h"
#include "whole_model.h"

namespace llorch {
namespace {

using test::Random;
using test::WholeModel;

// The first sequence has `rows_of_first` rows, the others one; the last of each wants logits.
Batch mixed_batch(Random& random, const Plan& plan, uint32_t n_sequences, uint32_t rows_of_first) {
  Batch batch;
  const uint32_t rows = rows_of_first + n_sequences - 1;
  batch.tokens = test::random_tokens(random, rows, plan.vocab);
  for (uint32_t i = 0, row = 0; i < n_sequences; ++i) {
    const uint32_t n = i == 0 ? rows_of_first : 1;
    batch.sequences.push_back({row, n, 0, i, 1});
    batch.pages.push_back(i);
    row += n;
    batch.logit_rows.push_back(row - 1);
  }
  return batch;
}

void compare(Program& program, const Batch& batch, const std::vector<RowSampling>& rows) {
  const size_t vocab = program.plan().vocab;
  const std::span<const float> logits = program.run(batch);
  Sampler sampler(program.plan().vocab);
  std::vector<SampledRow> expected;
  for (size_t i = 0; i < rows.size(); ++i)
    expected.push_back(sampler.sample_row(logits.subspan(i * vocab, vocab), rows[i]));
  const std::span<const SampledRow> sampled = program.sample(batch, rows);
  ASSERT_EQ(sampled.size(), rows.size());
  for (size_t i = 0; i < rows.size(); ++i) {
    EXPECT_EQ(sampled[i].fault, LogitsFault::kNone);
    EXPECT_EQ(sampled[i].token, expected[i].token);
    EXPECT_EQ(sampled[i].hash, expected[i].hash);
  }
}

TEST(SamplingConformance, IsTheHostsOfTheSameLogits) {
  LLORCH_SKIP_WITHOUT_BACKEND();
  const WholeModel model = test::tiny_llama();
  for (const test::BackendUnderTest& target : test::backends_under_test()) {
    SCOPED_TRACE(target.name);
    const auto program =
        target.backend->compile(model.plan, target.backend->place(model.plan, model.source),
                                {.kv = {.n_pages = 4, .page_size = 16}, .max_rows = 16, .poison = true});
    Random random(1);
    std::vector<int32_t> history = test::random_tokens(random, 3, model.plan.vocab);
    for (uint32_t index = 0; index < 4; ++index) {
      std::vector<RowSampling> rows(3);
      rows[0] = {SamplingParams{.temperature = 0.0f}, history, index};
      rows[1] = {SamplingParams{.temperature = 1.5f, .top_k = 50, .top_p = 0.9f, .seed = 7}, history, index};
      rows[2] = {SamplingParams{.temperature = 2.0f, .repetition_penalty = 1.4f}, history, index};
      compare(*program, mixed_batch(random, model.plan, 3, 1), rows);
      compare(*program, mixed_batch(random, model.plan, 3, 3), rows);
      history.push_back(static_cast<int32_t>(index));
    }
  }
}

// Decodes at a position, one row of each sequence, in this order.
Batch decodes(const std::vector<uint32_t>& sequences, uint32_t position, std::vector<int32_t> tokens) {
  Batch batch;
  batch.tokens = std::move(tokens);
  for (const uint32_t s : sequences) {
    const auto row = static_cast<uint32_t>(batch.sequences.size());
    batch.sequences.push_back({row, 1, position, row, 1});
    batch.pages.push_back(s);
    batch.logit_rows.push_back(row);
  }
  return batch;
}

// Steps that are started while the one before them runs, and read the tokens that it samples, wherever its rows have
// them, give the bits of steps one by one. Each number of rows comes often enough to be recorded.
TEST(SamplingConformance, StepsStartedAheadGiveTheSameBits) {
  LLORCH_SKIP_WITHOUT_BACKEND();
  const WholeModel model = test::tiny_llama();
  const std::vector<std::vector<uint32_t>> steps = {{0, 1, 2}, {2, 1, 0}, {0, 2, 1}, {1, 0}, {0, 1},
                                                    {1, 0},    {0},       {0},       {0},    {0}};
  for (const test::BackendUnderTest& target : test::backends_under_test()) {
    SCOPED_TRACE(target.name);
    const auto weights = target.backend->place(model.plan, model.source);
    const auto compile = [&] {
      return target.backend->compile(model.plan, weights, {.kv = {.n_pages = 4, .page_size = 16}, .max_rows = 16});
    };
    // Tokens and hashes of each sequence, with up to n_ahead steps in flight.
    const auto results = [&](Program& program, uint32_t n_ahead) {
      std::vector<std::vector<SampledRow>> all(3);
      std::vector<Batch> batches(steps.size());
      std::vector<std::vector<RowSampling>> rows(steps.size());
      std::vector<int32_t> last = {5, 6, 7};  // of each sequence: a token, or where it will be
      size_t n_finished = 0;
      const auto finish = [&] {
        const std::span<const SampledRow> sampled = program.finish();
        for (size_t i = 0; i < sampled.size(); ++i) {
          const uint32_t s = steps[n_finished][i];
          all[s].push_back(sampled[i]);
          if (n_ahead == 1) last[s] = sampled[i].token;
        }
        ++n_finished;
      };
      for (uint32_t step = 0; step < steps.size(); ++step) {
        std::vector<int32_t> tokens;
        for (const uint32_t s : steps[step]) {
          tokens.push_back(last[s]);
          rows[step].push_back({SamplingParams{.temperature = 1.5f, .seed = s}, {}, step});
        }
        batches[step] = decodes(steps[step], step, tokens);
        program.start(batches[step], rows[step]);
        for (uint32_t row = 0; row < steps[step].size(); ++row) last[steps[step][row]] = token_of_row_in_flight(row);
        if (step + 1 - n_finished == n_ahead) finish();
      }
      while (n_finished < steps.size()) finish();
      return all;
    };
    const auto one_by_one = compile(), ahead = compile();
    const auto expected = results(*one_by_one, 1), got = results(*ahead, ahead->max_in_flight());
    for (size_t s = 0; s < expected.size(); ++s) {
      ASSERT_EQ(got[s].size(), expected[s].size());
      for (size_t i = 0; i < expected[s].size(); ++i) {
        EXPECT_EQ(got[s][i].token, expected[s][i].token) << "sequence " << s << ", token " << i;
        EXPECT_EQ(got[s][i].hash, expected[s][i].hash) << "sequence " << s << ", token " << i;
      }
    }
  }
}

TEST(SamplingConformance, MoreStepsThanFitAreRefused) {
  LLORCH_SKIP_WITHOUT_BACKEND();
  const WholeModel model = test::tiny_llama();
  const auto backend = test::one_backend();
  const auto program = backend->compile(model.plan, backend->place(model.plan, model.source),
                                        {.kv = {.n_pages = 4, .page_size = 16}, .max_rows = 16});
  const std::vector<RowSampling> rows(1);
  const Batch batch = decodes({0}, 0, {1}), unknown = decodes({0}, 0, {token_of_row_in_flight(0)});
  EXPECT_THROW(program->run(unknown), BugError);  // nothing is in flight
  for (uint32_t i = 0; i < program->max_in_flight(); ++i) program->start(batch, rows);
  EXPECT_THROW(program->start(batch, rows), BugError);
  for (uint32_t i = 0; i < program->max_in_flight(); ++i) EXPECT_EQ(program->finish().size(), 1u);
  EXPECT_THROW(program->finish(), BugError);
  EXPECT_EQ(program->run(batch).size(), model.plan.vocab);
}

TEST(SamplingConformance, ABatchWithoutLogitsGivesNothing) {
  LLORCH_SKIP_WITHOUT_BACKEND();
  const WholeModel model = test::tiny_llama();
  const auto backend = test::one_backend();
  const auto program = backend->compile(model.plan, backend->place(model.plan, model.source),
                                        {.kv = {.n_pages = 4, .page_size = 16}, .max_rows = 16});
  Random random(1);
  Batch batch = mixed_batch(random, model.plan, 1, 1);
  batch.logit_rows.clear();
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(program->sample(batch, {}).empty());
  EXPECT_THROW(program->sample(batch, std::vector<RowSampling>(1)), BugError);
}

}  // namespace
}  // namespace llorch
