#include "trace/doctor.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "backend/cpu/cpu_backend.h"
#include "backend/reference/reference_backend.h"
#include "trace/excerpt.h"
#include "trace/faulty_backend_for_test.h"
#include "trace/tiny_model_for_test.h"

namespace llorch {
namespace {

using test::Fault;
using test::FaultyBackend;
using test::TinyModel;
using testing::HasSubstr;
using testing::Not;

class Doctor : public testing::Test {
 protected:
  Diagnosis look_at(Backend& subject, const DoctorOptions& options = {}) {
    const auto reference = make_reference_backend();
    return diagnose(subject, *reference, model_.plan, model_.source(), options);
  }
  Diagnosis look_at(Fault fault) {
    FaultyBackend subject(make_cpu_backend({1, ""}), std::move(fault));
    return look_at(subject);
  }
  // Plans of single steps have it or not.
  template <typename T, typename Change>
  static void change(Plan& plan, const char* step, Change change) {
    if (const int index = plan.find_step(step); index >= 0)
      change(std::get<T>(plan.steps[static_cast<size_t>(index)].op));
  }

  const TinyModel model_;
};

// The names of the checks that failed.
std::vector<std::string> failed(const Diagnosis& d) {
  std::vector<std::string> names;
  for (const Check& check : d.checks)
    if (!check.passed) names.push_back(check.name);
  return names;
}

TEST_F(Doctor, HealthyBackendsAreHealthy) {
  const auto cpu = make_cpu_backend({2, ""}), reference = make_reference_backend();
  for (Backend* backend : {cpu.get(), reference.get()}) {
    const Diagnosis d = look_at(*backend);
    EXPECT_TRUE(d.healthy()) << d.verdict;
    EXPECT_EQ(d.step, "");
    EXPECT_FALSE(d.position);
    EXPECT_EQ(d.verdict,
              fmt::format("{} gives the reference's bits in all {} checks", backend->info().name, d.checks.size()));
    EXPECT_EQ(d.checks.size(), 20u);
  }
}

TEST_F(Doctor, PositionsOfDecodedRows) {
  const Diagnosis d = look_at({.batch = [](Batch& batch, const KvShape& kv) {
    for (Batch::Sequence& s : batch.sequences)
      if (s.n_rows == 1 && s.first_position > 0 && s.first_position + 1 < s.n_pages * kv.page_size) ++s.first_position;
  }});
  EXPECT_EQ(d.step, "layers.0.rope_append");
  EXPECT_EQ(d.position, 1u);
  EXPECT_THAT(d.verdict, HasSubstr("layers.0.rope_append differs from the reference from position 1 on: positions of "
                                   "decoded rows"));
}

TEST_F(Doctor, PagesThatAreSwapped) {
  const Diagnosis d = look_at({.batch = [](Batch& batch, const KvShape&) {
    for (const Batch::Sequence& s : batch.sequences)  // all that were full before are taken in ascending order
      if (s.first_position > 0) std::sort(&batch.pages[s.first_page], &batch.pages[s.first_page] + s.n_pages);
  }});
  EXPECT_EQ(d.step, "layers.0.attn");
  EXPECT_THAT(failed(d), testing::Contains("scattered pages"));
  EXPECT_THAT(failed(d), Not(testing::Contains("page borders")));
  EXPECT_THAT(d.verdict, HasSubstr("page tables"));
}

TEST_F(Doctor, AStepThatIsWrongByItself) {
  const Diagnosis d = look_at(
      {.plan = [&](Plan& plan) { change<RmsNorm>(plan, "layers.1.ffn_norm", [](RmsNorm& op) { op.eps = 1e-3f; }); }});
  EXPECT_EQ(d.step, "layers.1.ffn_norm");
  EXPECT_EQ(d.position, 0u);
  EXPECT_THAT(failed(d), testing::Contains("1 token"));
  EXPECT_THAT(d.verdict, HasSubstr("the step itself"));
}

TEST_F(Doctor, AMaskThatForgets) {
  const Diagnosis d = look_at(
      {.plan = [&](Plan& plan) { change<Attention>(plan, "layers.1.attn", [](Attention& op) { op.window = 20; }); }});
  EXPECT_EQ(d.step, "layers.1.attn");
  EXPECT_EQ(d.position, 20u);
  EXPECT_THAT(failed(d), testing::Contains("33 tokens"));
  EXPECT_THAT(failed(d), Not(testing::Contains("5 tokens")));
  EXPECT_THAT(d.verdict, HasSubstr("from position 20 on: attention to several positions"));
}

TEST_F(Doctor, AFusionThatIsWrong) {
  const Diagnosis d =
      look_at({.fused_plan =
                   [&](Plan& plan) { change<RmsNorm>(plan, "layers.1.ffn_norm", [](RmsNorm& op) { op.eps = 1e-3f; }); },
               .fused_step = "layers.1.ffn_norm"});
  EXPECT_EQ(failed(d).front(), "fused");
  EXPECT_EQ(d.step, "layers.1.gate_up");
  EXPECT_THAT(d.verdict, HasSubstr("its fusion with layers.1.ffn_norm"));
}

TEST_F(Doctor, WeightsThatLieWrongly) {
  const Diagnosis d = look_at({.weight = [](const Weight& weight, std::vector<std::byte>& bytes) {
    if (weight.name == "layers.1.ffn_up.weight")
      std::swap_ranges(bytes.begin(), bytes.begin() + 128, bytes.begin() + 128);
  }});
  EXPECT_EQ(d.step, "layers.1.gate_up");
  EXPECT_EQ(failed(d).front(), "weights");
  EXPECT_THAT(d.verdict, HasSubstr("layers.1.ffn_up.weight"));
}

TEST_F(Doctor, AnEngineThatKeepsPositions) {
  const auto cpu = make_cpu_backend({1, ""});
  DoctorOptions options;
  options.engine.fault_keep_positions = true;
  const Diagnosis d = look_at(*cpu, options);
  EXPECT_EQ(d.step, "layers.0.attn");
  EXPECT_EQ(failed(d).front(), "history");
  EXPECT_EQ(d.position, 4u);
  EXPECT_THAT(d.verdict, HasSubstr("what ran before"));
  EXPECT_THAT(d.verdict, HasSubstr("positions 0 to 3 were never computed"));
}

TEST_F(Doctor, WhatTheSubjectThrowsIsFound) {
  const Diagnosis d = look_at({.batch = [](Batch& batch, const KvShape&) {
    if (batch.rows() > 100) throw Error("no memory left");
  }});
  EXPECT_EQ(d.step, "");
  EXPECT_THAT(d.verdict, HasSubstr("no memory left"));
  EXPECT_THAT(failed(d), testing::Contains("128 tokens"));
}

TEST_F(Doctor, LargeModelsAreCutAndItSaysSo) {
  const auto cpu = make_cpu_backend({1, ""});
  const uint64_t row = work_of_row(model_.plan);
  const Diagnosis d = look_at(*cpu, {.max_work = row * 20});
  EXPECT_TRUE(d.healthy()) << d.verdict;
  EXPECT_THAT(d.checks[0].sentence, HasSubstr("the first 1 of 2 layers at 34 of 128 positions, all layers at 5"));
  EXPECT_EQ(d.cut.n_layers, 1u);
  EXPECT_EQ(d.cut.n_positions, 34u);
}

TEST_F(Doctor, LayersThatAreLeftOutAreLookedAtTogether) {
  FaultyBackend subject(make_cpu_backend({1, ""}), {.plan = [](Plan& plan) {
                          change<RmsNorm>(plan, "layers.1.ffn_norm", [](RmsNorm& op) { op.eps = 1e-3f; });
                        }});
  const Diagnosis d = look_at(subject, {.max_work = work_of_row(model_.plan) * 20});
  EXPECT_THAT(failed(d), testing::ElementsAre("all layers"));
  EXPECT_EQ(d.step, "layers.1.ffn_norm");
  EXPECT_EQ(d.position, 0u);
  EXPECT_EQ(look_at(subject, {.max_work = work_of_row(model_.plan)}).cut.n_whole_positions, 0u) << "too much to do";
}

TEST_F(Doctor, StepsByThemselvesAreCountedByVerb) {
  const Diagnosis d = look_at({.plan = [](Plan& plan) {
    for (Step& step : plan.steps)
      if (auto* norm = std::get_if<RmsNorm>(&step.op)) norm->eps = 1e-3f;
  }});
  const auto steps = std::find_if(d.checks.begin(), d.checks.end(), [](const Check& c) { return c.name == "steps"; });
  ASSERT_NE(steps, d.checks.end());
  EXPECT_EQ(steps->finding->step, "layers.0.attn_norm");
  EXPECT_EQ(steps->finding->positions.size(), 128u);
  EXPECT_THAT(steps->sentence, HasSubstr("wrong by themselves in the run of 128 rows: 5 of 5 rms_norm"));
  EXPECT_THAT(d.verdict,
              HasSubstr("layers.0.attn_norm differs from the reference from position 0 on: the step itself"));
}

TEST_F(Doctor, RotationIsSeenFromTheSecondPositionOn) {
  const Diagnosis d = look_at({.plan = [](Plan& plan) {
    for (float& sin : plan.rope.sin) sin = -sin;
  }});
  EXPECT_EQ(d.step, "layers.0.rope_append");
  EXPECT_THAT(d.verdict, HasSubstr("from position 1 on: rotation: its pairs, signs or positions"));
}

// As if the step before it had left it other inputs.
TEST_F(Doctor, AStepThatIsWrongAmongOthersOnly) {
  const Diagnosis d = look_at({.plan = [](Plan& plan) {
    if (plan.find_step("layers.1.ffn_norm") < 0 || plan.find_step("embed") < 0) return;
    change<RmsNorm>(plan, "layers.1.ffn_norm", [](RmsNorm& op) { op.eps = 1e-3f; });
  }});
  EXPECT_THAT(failed(d), Not(testing::Contains("steps")));
  EXPECT_EQ(d.step, "layers.1.ffn_norm");
  EXPECT_THAT(d.verdict, HasSubstr("not the step itself, which is right when fed the reference's inputs"));
}

TEST_F(Doctor, AModelWhoseWeightIsNaNIsNotTheBackendsFault) {
  const auto cpu = make_cpu_backend({1, ""}), reference = make_reference_backend();
  const auto look_at_nan = [&](const char* name, size_t at, const DoctorOptions& options) {
    std::vector<std::byte> bytes;
    const WeightSource source{.open =
                                  [&](const Weight& w) {
                                    Tensor tensor = model_.checkpoint.at(w.name);
                                    if (w.name != name) return tensor;
                                    bytes.assign(tensor.bytes.begin(), tensor.bytes.end());
                                    bytes[2 * at] = std::byte{0xc0};
                                    bytes[2 * at + 1] = std::byte{0x7f};
                                    tensor.bytes = bytes;
                                    return tensor;
                                  },
                              .close = [](const Tensor&) {}};
    EXPECT_EQ(model_.plan.weights[0].dtype, DType::kBF16);
    return diagnose(*cpu, *reference, model_.plan, source, options);
  };
  const auto width = static_cast<size_t>(model_.plan.weights[0].shape[1]);  // hidden
  Diagnosis d = look_at_nan("layers.1.ffn_up.weight", 3 * width + 5, {});
  EXPECT_THAT(failed(d), testing::ElementsAre("model")) << d.verdict;
  EXPECT_EQ(d.step, "layers.1.gate_up");
  EXPECT_THAT(d.verdict, HasSubstr("no backend can be right at layers.1.gate_up: layers.1.ffn_up.weight (bf16) is NaN "
                                   "at row 3, column 5 in the file; there the reference gives NaN at position 0"));
  d = look_at_nan("layers.1.ffn_up.weight", 3 * width + 5, {.max_work = work_of_row(model_.plan) * 20});
  EXPECT_THAT(failed(d), testing::ElementsAre("model")) << "in a layer that is left out";
  EXPECT_EQ(d.step, "layers.1.gate_up");
  d = look_at_nan("token_embd.weight", 9 * width, {.tokens = {1, 2}});
  EXPECT_EQ(d.step, "embed") << "of a token that is not run";
}

TEST_F(Doctor, ChecksAreHeardOfAsTheyEnd) {
  const auto cpu = make_cpu_backend({1, ""});
  std::vector<std::string> names;
  const Diagnosis d =
      look_at(*cpu, {.tokens = {5, 6}, .on_check = [&](const Check& check) { names.push_back(check.name); }});
  ASSERT_EQ(names.size(), d.checks.size());
  EXPECT_EQ(names[0], "device");
  EXPECT_EQ(names[3], "steps");
}

TEST_F(Doctor, TokensThatDoNotFitAreRefused) {
  const auto cpu = make_cpu_backend({1, ""});
  for (const std::vector<int32_t>& tokens : {std::vector<int32_t>{1, 100000}, {-1}, std::vector<int32_t>(129, 1)})
    EXPECT_THROW(look_at(*cpu, {.tokens = tokens}), Error);
}

TEST_F(Doctor, ItsTokensMayBeGiven) {
  const auto cpu = make_cpu_backend({1, ""});
  const Diagnosis d = look_at(*cpu, {.tokens = {5, 5, 5, 7, 9, 5, 5}});
  EXPECT_TRUE(d.healthy()) << d.verdict;
  EXPECT_THAT(d.checks[0].sentence, HasSubstr("at 7 positions"));
}

TEST_F(Doctor, OneTokenIsEnough) {
  const auto cpu = make_cpu_backend({1, ""});
  EXPECT_TRUE(look_at(*cpu, {.tokens = {5}}).healthy());
}

}  // namespace
}  // namespace llorch
