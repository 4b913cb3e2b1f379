#include "trace/local.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>

#include "backend/cpu/cpu_backend.h"
#include "backend/reference/forwarding_backend_for_test.h"
#include "trace/diff.h"
#include "trace/tiny_model_for_test.h"

namespace llorch {
namespace {

using ::testing::ElementsAre;

// The scalar reference, with some numbers of every plan that it compiles changed first.
class Planted : public ForwardingBackend {
 public:
  explicit Planted(std::function<void(Plan&)> plant) : plant_(std::move(plant)) {}
  std::unique_ptr<Program> compile(const Plan& plan, std::shared_ptr<const PlacedWeights> weights,
                                   const CompileOptions& options) override {
    Plan changed = plan;
    plant_(changed);
    return ForwardingBackend::compile(changed, std::move(weights), options);
  }

 private:
  std::function<void(Plan&)> plant_;
};

std::vector<StepDiff> local_diffs(Backend& a, const SequenceRun& run, const BoundConditions* bounds = nullptr) {
  const test::TinyModel model;
  const auto reference = make_reference_backend();
  const CompileOptions options = test::TinyModel::tiny_options();
  const Recording truth = record_sequence(*model.compile(*reference), run, model.all_steps());
  const WeightSource source = model.source();
  return diff_local(a, *reference, {model.plan, source, run, options, truth, bounds}, model.all_steps());
}

std::vector<std::string> wrong(const std::vector<StepDiff>& diffs) {
  std::vector<std::string> names;
  for (const StepDiff& d : diffs)
    if (!d.equal) names.push_back(d.step);
  return names;
}

// Also checks that feeding does not change what the reference does.
TEST(Local, EveryStepOfTheReferenceAndTheCpuIsTheReferencesByItself) {
  const test::TinyModel model;
  for (const SequenceRun& run : {test::tiny_run(50, 3), test::tiny_run(1, 0), test::tiny_run(3, 2)}) {
    const auto cpu = make_cpu_backend({2, {}}), reference = make_reference_backend();
    for (Backend* backend : {cpu.get(), reference.get()}) {
      const std::vector<StepDiff> diffs = local_diffs(*backend, run);
      ASSERT_EQ(diffs.size(), model.plan.steps.size());
      for (size_t i = 0; i < diffs.size(); ++i) {
        EXPECT_EQ(diffs[i].step, model.plan.steps[i].name);
        EXPECT_EQ(diffs[i].rows, i + 3 < diffs.size() ? run.tokens.size() : run.n_logit_rows());
        EXPECT_TRUE(diffs[i].equal) << diffs[i].step;
      }
    }
  }
}

// A wrong eps is seen at each norm and nowhere else, though all that follows the first one differs in a whole run.
TEST(Local, AnErrorIsSeenWhereItIsMadeAndNotBehindIt) {
  Planted planted([](Plan& plan) {
    for (Step& step : plan.steps)
      if (auto* norm = std::get_if<RmsNorm>(&step.op)) norm->eps *= 2;
  });
  const test::TinyModel model;
  EXPECT_THAT(
      wrong(local_diffs(planted, test::tiny_run(9, 2))),
      ElementsAre("layers.0.attn_norm", "layers.0.ffn_norm", "layers.1.attn_norm", "layers.1.ffn_norm", "output_norm"));
  const auto reference = make_reference_backend();
  const SequenceRun run = test::tiny_run(9, 2);
  const Recording a = record_sequence(*model.compile(planted), run, model.all_steps());
  const Recording b = record_sequence(*model.compile(*reference), run, model.all_steps());
  EXPECT_EQ(wrong(diff_recordings(model.plan, a, b)).size(), model.plan.steps.size() - 1) << "all but embed";
}

TEST(Local, ASideThatPromisesNoBitsHasItsOwnBoundAtEachStep) {
  const BoundConditions bounds{.f16_kv = true, .n_layers = 2};
  const auto outside = [&](float factor) {
    Planted planted([factor](Plan& plan) {
      for (Step& step : plan.steps)
        if (auto* op = std::get_if<Attention>(&step.op)) op->scale *= factor;
    });
    std::vector<std::string> names;
    for (const StepDiff& d : local_diffs(planted, test::tiny_run(9, 2), &bounds))
      if (!d.within_bound) names.push_back(d.step);
    return names;
  };
  EXPECT_THAT(outside(1.0f + 0x1p-23f), testing::IsEmpty()) << "a last bit";
  EXPECT_THAT(outside(1.001f), ElementsAre("layers.0.attn", "layers.1.attn"));
}

TEST(Local, ErrorsOfRotationAttentionAndResidualAreToldApart) {
  const SequenceRun run = test::tiny_run(9, 2);
  Planted rotation([](Plan& plan) {
    for (float& sin : plan.rope.sin) sin = -sin;
  });
  EXPECT_THAT(wrong(local_diffs(rotation, run)), ElementsAre("layers.0.rope_append", "layers.1.rope_append"));
  Planted attention([](Plan& plan) {
    for (Step& step : plan.steps)
      if (auto* op = std::get_if<Attention>(&step.op); op != nullptr && op->layer == 1) op->window = 3;
  });
  EXPECT_THAT(wrong(local_diffs(attention, run)), ElementsAre("layers.1.attn"));
  Planted residual([](Plan& plan) {
    for (Step& step : plan.steps)
      if (auto* op = std::get_if<Linear>(&step.op); op != nullptr && step.name == "layers.0.ffn_out")
        op->accumulate = false;
  });
  EXPECT_THAT(wrong(local_diffs(residual, run)), ElementsAre("layers.0.ffn_out"));
  Planted embedding([](Plan& plan) {
    for (Step& step : plan.steps)
      if (auto* op = std::get_if<Embed>(&step.op); op != nullptr && step.name == "embed") op->scale = 2;
  });
  EXPECT_THAT(wrong(local_diffs(embedding, run)), ElementsAre("embed"));
}

TEST(Local, OnlyWantedStepsRun) {
  const test::TinyModel model;
  const auto reference = make_reference_backend();
  const CompileOptions options = test::TinyModel::tiny_options();
  const SequenceRun run = test::tiny_run(4, 1);
  const Recording truth = record_sequence(*model.compile(*reference), run, model.all_steps());
  const WeightSource source = model.source();
  StepSet steps(model.plan.steps.size());
  steps.back() = true;
  const std::vector<StepDiff> diffs =
      diff_local(*reference, *reference, {model.plan, source, run, options, truth}, steps);
  ASSERT_EQ(diffs.size(), 1u);
  EXPECT_EQ(diffs[0].step, "logits");
  EXPECT_EQ(diffs[0].argmax_agree, 2u);
}

}  // namespace
}  // namespace llorch
