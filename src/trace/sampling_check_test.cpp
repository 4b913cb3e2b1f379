#include "trace/sampling_check.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <deque>

#include "backend/reference/forwarding_backend_for_test.h"
#include "trace/tiny_model_for_test.h"

namespace llorch {
namespace {

// What a backend that samples by itself can do wrong with a row. is_ahead: its step began before the one before ended.
using Spoil = std::function<void(SampledRow& row, const RowSampling& sampling, bool is_ahead)>;

// Samples in finish(), with two steps in flight.
class SamplingProgram final : public Program {
 public:
  SamplingProgram(std::unique_ptr<Program> inner, Spoil spoil) : inner_(std::move(inner)), spoil_(std::move(spoil)) {}

  std::span<const float> run(const Batch& batch) override { return inner_->run(batch); }
  std::span<const float> trace(const Batch& batch, const StepSet& steps, const StepVisitor& visit) override {
    return inner_->trace(batch, steps, visit);
  }
  uint32_t max_in_flight() const override { return 2; }
  void start(const Batch& batch, std::span<const RowSampling> rows) override {
    started_.push_back({batch, rows, !started_.empty()});
  }
  std::span<const SampledRow> finish() override {
    Started step = std::move(started_.front());
    started_.pop_front();
    for (int32_t& token : step.batch.tokens)
      if (is_in_flight(token)) token = std::max(sampled_[row_in_flight(token)].token, 0);
    const std::span<const SampledRow> right = inner_->sample(step.batch, step.rows);
    sampled_.assign(right.begin(), right.end());
    for (size_t i = 0; i < sampled_.size(); ++i) spoil_(sampled_[i], step.rows[i], step.is_ahead);
    return sampled_;
  }
  size_t bytes() const override { return inner_->bytes(); }
  const PlacedWeights& weights() const override { return inner_->weights(); }
  const Plan& plan() const override { return inner_->plan(); }
  const CompileOptions& options() const override { return inner_->options(); }

 private:
  struct Started {
    Batch batch;
    std::span<const RowSampling> rows;
    bool is_ahead;
  };
  const std::unique_ptr<Program> inner_;
  const Spoil spoil_;
  std::deque<Started> started_;
  std::vector<SampledRow> sampled_;
};

class SamplingBackend final : public ForwardingBackend {
 public:
  explicit SamplingBackend(Spoil spoil) : spoil_(std::move(spoil)) {}
  std::unique_ptr<Program> compile(const Plan& plan, std::shared_ptr<const PlacedWeights> weights,
                                   const CompileOptions& options) override {
    return std::make_unique<SamplingProgram>(ForwardingBackend::compile(plan, std::move(weights), options), spoil_);
  }

 private:
  const Spoil spoil_;
};

Diagnosis look_at(Spoil spoil) {
  const test::TinyModel model;
  SamplingBackend subject(std::move(spoil));
  const auto reference = make_reference_backend();
  return diagnose(subject, *reference, model.plan, model.source(), {.max_positions = 9});
}

const Check& sampling_check(const Diagnosis& d) {
  return *std::find_if(d.checks.begin(), d.checks.end(), [](const Check& c) { return c.kind == CheckKind::kSampling; });
}

TEST(SamplingCheck, PassesWhatDrawsAsTheHostDoes) {
  const Diagnosis d = look_at([](SampledRow&, const RowSampling&, bool) {});
  EXPECT_TRUE(d.healthy()) << d.verdict;
  EXPECT_EQ(sampling_check(d).sentence,
            "tokens of 12 steps of two sequences, drawn one by one and, where it can, a step ahead");
}

TEST(SamplingCheck, NamesATokenThatTheHostDoesNotDraw) {
  const Diagnosis d = look_at([](SampledRow& row, const RowSampling& sampling, bool) {
    if (sampling.params.temperature > 0.0f && sampling.index == 3) ++row.token;
  });
  EXPECT_FALSE(sampling_check(d).passed);
  EXPECT_THAT(d.verdict, testing::StartsWith("tokens are not what its logits give: token 3 at temperature 1.5, "));
}

TEST(SamplingCheck, NamesAHash) {
  const Diagnosis d = look_at([](SampledRow& row, const RowSampling&, bool) { row.hash ^= 1; });
  EXPECT_THAT(d.verdict, testing::HasSubstr("token 0 at temperature 0, "));
}

TEST(SamplingCheck, NamesAPenaltyThatIsNotApplied) {
  const Diagnosis d = look_at([](SampledRow& row, const RowSampling& sampling, bool) {
    if (sampling.params.repetition_penalty != 1.0f && sampling.index == 5) ++row.token;
  });
  EXPECT_THAT(d.verdict, testing::HasSubstr("token 5 at temperature 2, with a repetition penalty"));
}

TEST(SamplingCheck, NamesWhatOnlyAStepAheadDoes) {
  const Diagnosis d = look_at([](SampledRow& row, const RowSampling& sampling, bool is_ahead) {
    if (is_ahead && sampling.index == 7) row.token = 0, row.hash = 0;
  });
  EXPECT_THAT(d.verdict, testing::HasSubstr("token 7 at temperature 0, with a step in flight behind its own"));
}

}  // namespace
}  // namespace llorch
