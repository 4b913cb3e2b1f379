#include "trace/record.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "backend/cpu/cpu_backend.h"
#include "backend/reference/reference_backend.h"
#include "trace/diff.h"
#include "trace/tiny_model_for_test.h"

namespace llorch {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

Recording record(Backend& backend, const test::TinyModel& model, const SequenceRun& run) {
  return record_sequence(*model.compile(backend), run, model.all_steps());
}

TEST(Record, AStepHasARowForEachPositionAndGatheredOnesForThoseThatWantLogits) {
  const test::TinyModel model;
  const Recording r = record(*make_reference_backend(), model, test::tiny_run(7, 2));
  const Recording::Rows& embed = r.steps.front();
  EXPECT_THAT(embed.positions, ElementsAre(0, 1, 2, 3, 4, 5, 6));
  EXPECT_EQ(embed.values.size(), 7 * model.plan.slot(output_slot(model.plan.steps[0].op)).width);
  EXPECT_THAT(r.steps.back().positions, ElementsAre(4, 5, 6));
  EXPECT_EQ(r.steps.back().values.size(), size_t{3} * model.plan.vocab);
}

TEST(Record, OnlyWantedStepsAreKept) {
  const test::TinyModel model;
  StepSet steps(model.plan.steps.size());
  const auto wanted = static_cast<size_t>(model.plan.find_step("layers.1.attn_out"));
  steps[wanted] = true;
  const Recording r = record_sequence(*model.compile(*make_reference_backend()), test::tiny_run(5, 0), steps);
  for (size_t i = 0; i < r.steps.size(); ++i) EXPECT_EQ(r.steps[i].positions.empty(), i != wanted) << i;
}

TEST(Record, NeitherChunksNorPagesNorTheBackendChangeABit) {
  const test::TinyModel model;
  const SequenceRun whole = test::tiny_run(50, 3);  // 47 rows: two batches of the program's 32
  SequenceRun chunked = whole;
  chunked.chunk = 5;
  chunked.pages = {6, 2, 7, 0};
  const Recording want = record(*make_reference_backend(), model, whole);
  const Recording got = record(*make_cpu_backend({2, {}}), model, chunked);
  const std::vector<StepDiff> diffs = diff_recordings(model.plan, got, want);
  ASSERT_EQ(diffs.size(), model.plan.steps.size());
  EXPECT_EQ(first_outside(diffs), -1) << diffs[static_cast<size_t>(std::max(first_outside(diffs), 0))].step;
}

TEST(Record, WhatCannotRunIsRefusedWithBothNumbers) {
  const test::TinyModel model;
  const CompileOptions options = test::TinyModel::tiny_options();
  const auto error = [&](const SequenceRun& run) -> std::string {
    try {
      check_run(run, model.plan, options);
    } catch (const Error& e) {
      return e.what();
    }
    return "no error";
  };
  EXPECT_EQ(error(test::tiny_run(128, 0)), "no error");
  EXPECT_THAT(error({}), HasSubstr("expected at least one, got none"));
  EXPECT_THAT(error(test::tiny_run(4, 4)), HasSubstr("expected a prompt of 1 to 4 of the 4 tokens, got 0"));
  EXPECT_THAT(error(test::tiny_run(129, 0)), HasSubstr("129 positions exceed the context of 128"));
  SequenceRun run = test::tiny_run(40, 0);
  run.pages = {0, 1};
  EXPECT_THAT(error(run), HasSubstr("40 positions need 3 KV pages, got 2"));
  run = test::tiny_run(3, 0);
  run.tokens[1] = -1;
  EXPECT_THAT(error(run), HasSubstr("token -1 at position 1"));
  run.tokens[1] = static_cast<int32_t>(model.plan.vocab);
  EXPECT_THAT(error(run), HasSubstr("is not in the vocabulary"));
}

}  // namespace
}  // namespace llorch
