// The isolation gate passes with a sound engine and program, and names what differs with others.
#include "engine/self_test.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <set>
#include <thread>

#include "engine/fake_program_for_test.h"

namespace llorch {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::UnorderedElementsAre;

std::unique_ptr<Program> make_fake(FakeOptions fake, const CompileOptions& options) {
  fake.n_pages = options.kv.n_pages;
  fake.page_size = options.kv.page_size;
  fake.max_rows = options.max_rows;
  fake.max_logit_rows = options.max_logit_rows;
  return std::make_unique<FakeProgram>(fake);
}

SelfTest run(const FakeOptions& fake, const SelfTestOptions& options = {}) {
  FakeProgram program(fake);
  return self_test(
      program, [&](const CompileOptions& compile) { return make_fake(fake, compile); }, options);
}

// What self_test throws.
std::string failure_of(const FakeOptions& fake, const SelfTestOptions& options = {}) {
  try {
    run(fake, options);
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

TEST(SelfTest, PassesWithASoundEngine) {
  const SelfTest result = run({});
  EXPECT_THAT(result.histories, ElementsAre("a warm-up", "requests that ran beside it", "other requests",
                                            "an error in a step", "a cancelled request", "a preemption"));
  EXPECT_EQ(result.skipped, "");
  EXPECT_GT(result.ms, 0.0);
}

TEST(SelfTest, KeptPositionsAreFound) {
  SelfTestOptions options;
  options.engine.fault_keep_positions = true;
  EXPECT_EQ(failure_of({}, options),
            "Self-test: after a warm-up the logits at position 12 are not those of the first run.");
}

// From its n-th run on, a program gives other logits.
std::string failure_from_run(uint32_t n) {
  FakeOptions fake;
  auto runs = std::make_shared<uint32_t>(0);
  fake.after_run = [runs, n](const Batch&, std::span<float> logits) {
    if (++*runs < n) return;
    for (size_t i = 0; i < logits.size(); i += 50) logits[i] += 1.0f;
  };
  return failure_of(fake);
}

TEST(SelfTest, NamesTheHistoryAndThePosition) {
  EXPECT_EQ(failure_from_run(14),
            "Self-test: after a warm-up the logits at position 15 are not those of the first run.");
  std::set<std::string> histories;  // which run is whose differs a little from time to time
  for (uint32_t n = 9; n < 200; ++n) {
    const std::string failure = failure_from_run(n);
    if (failure.empty()) break;
    histories.insert(failure.substr(0, failure.find(" the logits")));
  }
  EXPECT_THAT(histories,
              UnorderedElementsAre("Self-test: after a warm-up", "Self-test: after requests that ran beside it",
                                   "Self-test: after other requests", "Self-test: after an error in a step",
                                   "Self-test: after a cancelled request", "Self-test: after a preemption"));
}

TEST(SelfTest, AFirstRunThatFailsSaysWhy) {
  FakeOptions fake;
  fake.after_run = [](const Batch&, std::span<float> logits) { std::fill(logits.begin(), logits.end(), NAN); };
  EXPECT_THAT(failure_of(fake), HasSubstr("Self-test: the first run failed: The logits at position 12 hold NaN"));
}

TEST(SelfTest, TakesTheStepsThatItsEstimateCounts) {
  FakeOptions fake;
  auto decodes = std::make_shared<std::atomic<uint32_t>>(0), prefills = std::make_shared<std::atomic<uint32_t>>(0);
  fake.before_run = [=](const Batch& batch) {
    const bool prefill = batch.rows() > batch.sequences.size();
    ++*(prefill ? prefills : decodes);
  };
  run(fake);
  EXPECT_LE(*decodes, 70u);
  EXPECT_GE(*decodes, 55u);
  EXPECT_LE(*prefills, 14u);
  EXPECT_GE(*prefills, 10u);
}

TEST(SelfTest, IsNotRunWhenItWouldTakeTooLong) {
  FakeOptions fake;
  auto runs = std::make_shared<uint32_t>(0);
  fake.before_run = [runs](const Batch&) {
    ++*runs;
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  };
  SelfTestOptions options;
  options.limit_ms = 20;
  const SelfTest result = run(fake, options);
  EXPECT_TRUE(result.histories.empty());
  EXPECT_GT(result.estimated_ms, 20.0);
  EXPECT_THAT(result.skipped, HasSubstr("more than 20"));
  EXPECT_EQ(*runs, 5u);  // the fifth has begun when the fourth token is told
}

TEST(SelfTest, IsNotRunInAContextThatIsTooShort) {
  FakeOptions fake;
  fake.context = 31;
  EXPECT_EQ(run(fake).skipped, "it needs sequences of 32 positions, and there are 31");
}

}  // namespace
}  // namespace llorch
