// The defect that this project began with, as a standing test: a worker that has served others answers a prompt with
// the very logits of a fresh one; and the check sees it when a sequence's positions are not reset.
#include <gtest/gtest.h>

#include "backends_under_test.h"
#include "engine/client_for_test.h"
#include "engine/engine.h"
#include "whole_model.h"

namespace llorch {
namespace {

using test::WholeModel;
using Rows = std::vector<float>;  // logits [steps, vocab]

// A program that keeps a copy of all logits that the engine was given.
class RecordingProgram final : public Program {
 public:
  RecordingProgram(std::unique_ptr<Program> program, std::shared_ptr<Rows> rows)
      : program_(std::move(program)), rows_(std::move(rows)) {}

  std::span<const float> run(const Batch& batch) override {
    const std::span<const float> logits = program_->run(batch);
    rows_->insert(rows_->end(), logits.begin(), logits.end());
    return logits;
  }
  std::span<const float> trace(const Batch& batch, const StepSet& steps, const StepVisitor& visit) override {
    return program_->trace(batch, steps, visit);
  }
  size_t bytes() const override { return program_->bytes(); }
  const Plan& plan() const override { return program_->plan(); }
  const CompileOptions& options() const override { return program_->options(); }
  const PlacedWeights& weights() const override { return program_->weights(); }

 private:
  std::unique_ptr<Program> program_;
  std::shared_ptr<Rows> rows_;
};

struct Answer {
  std::vector<int32_t> tokens;
  Rows logits;  // of every sampled token
};

// An engine on a backend of its own, as a process has it.
class Worker {
 public:
  Worker(const WholeModel& model, const EngineOptions& options) : rows_(std::make_shared<Rows>()) {
    const auto backend = test::one_backend();
    auto program = backend->compile(model.plan, backend->place(model.plan, model.source),
                                    {.kv = {.n_pages = 8, .page_size = 16}, .max_rows = 64});
    engine_ = std::make_unique<Engine>(std::make_unique<RecordingProgram>(std::move(program), rows_), options);
  }

  void warm_up() { engine_->warm_up(); }

  Answer ask(const std::vector<int32_t>& prompt, float temperature) {
    rows_->clear();  // no sequence runs: the engine thread waits
    Request request;
    request.tokens = prompt;
    request.max_tokens = 16;
    request.sampling.temperature = temperature;
    const Client client(*engine_, std::move(request));
    EXPECT_EQ(client.code(), "");
    return {client.tokens(), *rows_};
  }

 private:
  std::shared_ptr<Rows> rows_;
  std::unique_ptr<Engine> engine_;
};

const std::vector<int32_t> kFirst = {0, 50, 60, 70, 80};
const std::vector<int32_t> kOther = {0, 44, 91, 17, 230, 122, 63, 9, 75, 55, 31};

// Whether a fresh worker's answer to the first prompt comes back after a warm-up, and again after another prompt.
::testing::AssertionResult same_after_others(const WholeModel& model, const EngineOptions& options, float temperature) {
  const uint32_t vocab = model.plan.vocab;
  const Answer fresh = Worker(model, {}).ask(kFirst, temperature);
  if (fresh.tokens.size() != 16 || fresh.logits.size() != 16 * vocab)
    return ::testing::AssertionFailure() << "a fresh worker gave " << fresh.tokens.size() << " tokens and "
                                         << fresh.logits.size() << " logits";
  Worker worker(model, options);
  worker.warm_up();
  const Answer warm = worker.ask(kFirst, temperature);
  const Answer other = worker.ask(kOther, temperature);
  const Answer again = worker.ask(kFirst, temperature);
  if (test::same_bits(other.logits, fresh.logits, vocab))
    return ::testing::AssertionFailure() << "the other prompt has the same logits: nothing is tested";
  for (const auto& [when, answer] :
       {std::pair{"after the warm-up", &warm}, std::pair{"after another prompt", &again}}) {
    if (const auto same = test::same_bits(answer->logits, fresh.logits, vocab); !same)
      return ::testing::AssertionFailure() << when << ": logits: " << same.message();
    if (answer->tokens != fresh.tokens) return ::testing::AssertionFailure() << when << ": other tokens";
  }
  return ::testing::AssertionSuccess();
}

class SeedCase : public ::testing::TestWithParam<float> {};  // temperature

TEST_P(SeedCase, LogitsAreThoseOfAFreshWorker) {
  LLORCH_SKIP_WITHOUT_BACKEND();
  for (const WholeModel& model : test::whole_models())
    EXPECT_TRUE(same_after_others(model, {}, GetParam())) << model.name;
}

TEST_P(SeedCase, KeptPositionsAreFound) {
  LLORCH_SKIP_WITHOUT_BACKEND();
  for (const WholeModel& model : test::whole_models())
    EXPECT_FALSE(same_after_others(model, {.fault_keep_positions = true}, GetParam())) << model.name;
}

INSTANTIATE_TEST_SUITE_P(Conformance, SeedCase, ::testing::Values(0.0f, 0.7f),
                         [](const auto& test) { return test.param > 0.0f ? "Sampled" : "Greedy"; });

}  // namespace
}  // namespace llorch
