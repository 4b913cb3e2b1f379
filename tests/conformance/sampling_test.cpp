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
