// The scheduler's policy, without a model: budgets, order, chunks, admission, preemption.
#include "engine/scheduler.h"

#include <gtest/gtest.h>

#include <random>

namespace llorch {
namespace {

constexpr SchedulerOptions kOptions{
    .n_pages = 16, .page_size = 4, .max_step_rows = 16, .max_prefill_rows = 8, .max_running = 4};

Sequence* add(Scheduler& scheduler, RequestId id, uint32_t prompt, uint32_t max_tokens) {
  Request request;
  request.tokens.assign(prompt, static_cast<int32_t>(id));
  request.max_tokens = max_tokens;
  auto sequence = std::make_unique<Sequence>(id, std::move(request), EventSink());
  Sequence* pointer = sequence.get();
  scheduler.add(std::move(sequence));
  return pointer;
}

// "id:first_position+n_rows", with * when it wants logits
std::string to_text(const ScheduledBatch& step) {
  std::string text;
  for (size_t i = 0; i < step.sequences.size(); ++i) {
    const Batch::Sequence& rows = step.batch.sequences[i];
    const auto& wanted = step.batch.logit_rows;
    const bool wants = std::count(wanted.begin(), wanted.end(), rows.first_row + rows.n_rows - 1) > 0;
    text += fmt::format("{}{}:{}+{}{}", text.empty() ? "" : " ", step.sequences[i]->id, rows.first_position,
                        rows.n_rows, wants ? "*" : "");
  }
  return text;
}

// Runs one step in which each sampled token is 7; ends sequences at their max_tokens.
std::string run(Scheduler& scheduler) {
  const ScheduledBatch step = scheduler.next();
  const std::string text = to_text(step);
  scheduler.commit(step);
  for (Sequence* sequence : step.sequences) {
    if (sequence->n_pending() > 0) continue;
    sequence->tokens.push_back(7);
    if (sequence->n_generated() == sequence->request.max_tokens) scheduler.remove(sequence);
  }
  return text;
}

TEST(Scheduler, PrefillsThenDecodes) {
  Scheduler scheduler(kOptions);
  add(scheduler, 1, 5, 3);
  EXPECT_EQ(run(scheduler), "1:0+5*");
  EXPECT_EQ(scheduler.pages().n_free(), 14u);
  EXPECT_EQ(run(scheduler), "1:5+1*");
  EXPECT_EQ(run(scheduler), "1:6+1*");
  EXPECT_EQ(run(scheduler), "");
  EXPECT_EQ(scheduler.pages().n_free(), 16u);
}

TEST(Scheduler, CutsPrefillIntoChunksAndDecodesBesideIt) {
  Scheduler scheduler(kOptions);
  add(scheduler, 1, 3, 9);
  EXPECT_EQ(run(scheduler), "1:0+3*");
  add(scheduler, 2, 19, 1);
  add(scheduler, 3, 2, 2);
  EXPECT_EQ(run(scheduler), "1:3+1* 2:0+8");
  EXPECT_EQ(run(scheduler), "1:4+1* 2:8+8");
  EXPECT_EQ(run(scheduler), "1:5+1* 2:16+3* 3:0+2*");  // what the first leaves goes to the next
  EXPECT_EQ(run(scheduler), "1:6+1* 3:2+1*");
}

TEST(Scheduler, KeepsTheStepBudgetWhenDecodesFillIt) {
  Scheduler scheduler({.n_pages = 64, .page_size = 4, .max_step_rows = 4, .max_prefill_rows = 8, .max_running = 4});
  for (RequestId id = 1; id <= 3; ++id) add(scheduler, id, 1, 20);
  EXPECT_EQ(run(scheduler), "1:0+1* 2:0+1* 3:0+1*");
  add(scheduler, 4, 5, 2);
  EXPECT_EQ(run(scheduler), "1:1+1* 2:1+1* 3:1+1* 4:0+1");
}

TEST(Scheduler, AdmitsInOrderOfArrivalByPagesAndByNumber) {
  Scheduler scheduler(kOptions);
  add(scheduler, 1, 4, 4);
  add(scheduler, 2, 60, 4);  // 15 pages: must wait for the first to end
  add(scheduler, 3, 1, 1);   // would fit, but does not overtake
  EXPECT_EQ(run(scheduler), "1:0+4*");
  EXPECT_EQ(run(scheduler), "1:4+1*");
  EXPECT_EQ(run(scheduler), "1:5+1*");
  EXPECT_EQ(run(scheduler), "1:6+1*");
  EXPECT_EQ(run(scheduler), "2:0+8");

  Scheduler narrow(kOptions);
  for (RequestId id = 1; id <= 6; ++id) add(narrow, id, 1, 1 + static_cast<uint32_t>(id % 2));
  EXPECT_EQ(run(narrow), "1:0+1* 2:0+1* 3:0+1* 4:0+1*");  // max_running
  EXPECT_EQ(run(narrow), "1:1+1* 3:1+1* 5:0+1* 6:0+1*");
}

TEST(Scheduler, PreemptsTheYoungestAndKeepsItsTokens) {
  Scheduler scheduler({.n_pages = 4, .page_size = 4, .max_step_rows = 16, .max_prefill_rows = 8, .max_running = 4});
  add(scheduler, 1, 3, 12);
  Sequence* young = add(scheduler, 2, 3, 8);
  add(scheduler, 3, 1, 1);  // waits all the time, and does not overtake the preempted one
  EXPECT_EQ(run(scheduler), "1:0+3* 2:0+3*");
  for (uint32_t p = 3; p <= 7; ++p) EXPECT_EQ(run(scheduler), fmt::format("1:{}+1* 2:{}+1*", p, p));
  EXPECT_EQ(scheduler.pages().n_free(), 0u);
  EXPECT_EQ(run(scheduler), "1:8+1*");  // takes a page of the other
  EXPECT_EQ(scheduler.n_preemptions(), 1u);
  EXPECT_EQ(young->n_generated(), 6u);
  EXPECT_TRUE(young->pages.empty());
  for (uint32_t p = 9; p <= 13; ++p) EXPECT_EQ(run(scheduler), fmt::format("1:{}+1*", p));
  EXPECT_EQ(run(scheduler), "2:0+8");  // computed again, its tokens kept
  EXPECT_EQ(run(scheduler), "2:8+1*");
  EXPECT_EQ(run(scheduler), "2:9+1*");
  EXPECT_EQ(run(scheduler), "3:0+1*");
  EXPECT_EQ(run(scheduler), "");
  EXPECT_EQ(scheduler.pages().n_free(), 4u);
}

TEST(Scheduler, TakesSequencesOutWhereverTheyAre) {
  Scheduler scheduler(kOptions);
  Sequence* running = add(scheduler, 1, 30, 2);
  run(scheduler);
  Sequence* waiting = add(scheduler, 2, 40, 2);
  EXPECT_EQ(scheduler.find(2), waiting);
  EXPECT_EQ(scheduler.remove(waiting)->id, 2u);
  EXPECT_EQ(scheduler.find(2), nullptr);
  EXPECT_THROW(scheduler.remove(waiting), BugError);
  EXPECT_EQ(scheduler.remove(running)->n_computed, 8u);
  EXPECT_EQ(scheduler.pages().n_free(), 16u);
  EXPECT_THROW(add(scheduler, 3, 60, 5), BugError);  // 65 positions, 64 in the pool
}

TEST(Scheduler, EveryMixEndsWithinItsBudgetsAndLosesNoPage) {
  for (uint32_t seed = 0; seed < 200; ++seed) {
    std::mt19937 random(seed);
    const auto up_to = [&](uint32_t n) { return 1 + static_cast<uint32_t>(random() % n); };
    SchedulerOptions options;
    options.page_size = up_to(5);
    options.n_pages = 3 + up_to(20);
    options.max_running = up_to(6);
    options.max_step_rows = options.max_running + up_to(9) - 1;
    options.max_prefill_rows = up_to(9);
    Scheduler scheduler(options);
    const uint32_t positions = options.n_pages * options.page_size;
    uint32_t to_add = 30;
    while (to_add > 0 || scheduler.n_running() + scheduler.n_waiting() > 0) {
      if (to_add > 0 && random() % 2 == 0) {
        const uint32_t prompt = up_to(positions - 1);
        add(scheduler, to_add--, prompt, up_to(positions - prompt));
      }
      const ScheduledBatch step = scheduler.next();
      ASSERT_LE(step.batch.rows(), options.max_step_rows);
      ASSERT_LE(scheduler.n_running(), options.max_running);
      ASSERT_EQ(step.sequences.empty(), scheduler.n_running() + scheduler.n_waiting() == 0);
      uint32_t prefill = 0, used = 0;
      for (const Batch::Sequence& rows : step.batch.sequences) prefill += rows.n_rows > 1 ? rows.n_rows : 0;
      for (const Sequence* sequence : scheduler.sequences()) used += static_cast<uint32_t>(sequence->pages.size());
      ASSERT_LE(prefill, options.max_prefill_rows);
      ASSERT_EQ(scheduler.pages().n_free() + used, options.n_pages);
      scheduler.commit(step);
      for (Sequence* sequence : step.sequences) {
        if (sequence->n_pending() > 0) continue;
        sequence->tokens.push_back(7);
        if (sequence->n_generated() == sequence->request.max_tokens) scheduler.remove(sequence);
      }
    }
    ASSERT_EQ(scheduler.pages().n_free(), options.n_pages);
  }
}

}  // namespace
}  // namespace llorch
