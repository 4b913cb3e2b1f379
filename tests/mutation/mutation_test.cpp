// Bugs planted one at a time into a backend or the scheduler: each makes a model sick, and the diagnosis names the step
// that has it.
#include <gtest/gtest.h>

#include <set>

#include "backend/reference/reference_backend.h"
#include "planted.h"
#include "planted_bugs.h"
#include "subject.h"
#include "trace/doctor.h"
#include "whole_model.h"

namespace llorch {

using test::PlantedBug;
using test::WholeModel;

void PrintTo(const PlantedBug& bug, std::ostream* out) { *out << bug.id; }

namespace {

WholeModel small_llama(const char* name, std::vector<DType> dtypes, bool bias = false, float vector_scale = 0.125f) {
  return test::random_llama({.name = name,
                             .dtypes = std::move(dtypes),
                             .pairs = RopePairs::kInterleaved,
                             .tied = true,
                             .bias = bias,
                             .hidden = 64,
                             .ffn = 288,  // a segment of 256 and one of 32
                             .n_heads = 4,
                             .n_kv_heads = 2,
                             .head_dim = 16,
                             .vocab = 67,  // fills no group of rows
                             .vector_scale = vector_scale});
}

// One superblock in most rows, two in those of ffn_out.
WholeModel small_k_llama(const char* name, DType dtype) {
  return test::random_llama({.name = name,
                             .dtypes = {dtype},
                             .pairs = RopePairs::kInterleaved,
                             .tied = true,
                             .bias = false,
                             .hidden = 256,
                             .ffn = 512,
                             .n_heads = 4,
                             .n_kv_heads = 2,
                             .head_dim = 64,
                             .vocab = 67});
}

template <typename Verb, typename Change>
WholeModel changed(WholeModel model, Change change) {
  for (Step& step : model.plan.steps)
    if (auto* op = std::get_if<Verb>(&step.op)) change(*op);
  return model;
}

// The models of the table. "loud": its keys and values are beyond f16.
WholeModel make_model(const std::string& name) {
  if (name == "f32") return small_llama("f32", {DType::kF32});
  if (name == "f16") return small_llama("f16", {DType::kF16});
  if (name == "bf16") return small_llama("bf16", {DType::kBF16});
  if (name == "q8_0") return small_llama("q8_0", {DType::kQ8_0});
  if (name == "q4_0") return small_llama("q4_0", {DType::kQ4_0});
  if (name == "q4_1") return small_llama("q4_1", {DType::kQ4_1});
  if (name == "q5_0") return small_llama("q5_0", {DType::kQ5_0});
  if (name == "q4_k") return small_k_llama("q4_k", DType::kQ4_K);
  if (name == "q6_k") return small_k_llama("q6_k", DType::kQ6_K);
  if (name == "q8_0 kv") return small_k_llama("q8_0 kv", DType::kF32);  // heads of 64: two blocks
  if (name == "f32 kv")
    return test::random_llama({.name = "f32 kv",
                               .dtypes = {DType::kF16},
                               .pairs = RopePairs::kInterleaved,
                               .tied = true,
                               .bias = false,
                               .hidden = 96,  // one head: an emulated block has room for one chunk in f32
                               .ffn = 64,
                               .n_heads = 1,
                               .n_kv_heads = 1,
                               .head_dim = 96,
                               .vocab = 67});
  if (name == "bias") return small_llama("bias", {DType::kF32}, true);
  if (name == "loud") return small_llama("loud", {DType::kF32}, true, 1e6f);
  if (name == "window") return changed<Attention>(make_model("f32"), [](Attention& op) { op.window = 21; });
  if (name == "scaled") return changed<Embed>(make_model("f32"), [](Embed& op) { op.scale = 0.75f; });
  fail("no model is called {}", name);
}

const WholeModel& model(const std::string& name) {
  static std::map<std::string, WholeModel> models;
  const auto it = models.find(name);
  return it != models.end() ? it->second : models.emplace(name, make_model(name)).first->second;
}

DType kv_of(const std::string& model) {
  return model == "q8_0 kv" ? DType::kQ8_0 : model == "f32 kv" ? DType::kF32 : DType::kF16;
}

Diagnosis diagnosis_of(const WholeModel& m) {
  const test::Subject subject = test::make_subject(m.name);
  const auto reference = make_reference_backend();
  return diagnose(*subject.backend, *reference, m.plan, m.source,
                  {.max_positions = subject.max_positions, .kv_dtype = kv_of(m.name)});
}

class Mutation : public ::testing::TestWithParam<PlantedBug> {
 protected:
  void TearDown() override { planted_bug = 0; }
};

TEST_P(Mutation, IsNamed) {
  const PlantedBug& bug = GetParam();
  planted_bug = bug.number;
  const Diagnosis diagnosis = diagnosis_of(model(bug.model));
  EXPECT_FALSE(diagnosis.healthy());
  EXPECT_EQ(diagnosis.step, bug.step) << diagnosis.verdict;
}

INSTANTIATE_TEST_SUITE_P(Conformance, Mutation, ::testing::ValuesIn(test::kPlantedBugs), [](const auto& param) {
  std::string name = param.param.id;
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
});

TEST(Mutation, WithoutABugEveryModelIsHealthy) {
  std::set<std::string> names;
  for (const PlantedBug& bug : test::kPlantedBugs) names.insert(bug.model);
  for (const std::string& name : names) {
    const Diagnosis diagnosis = diagnosis_of(model(name));
    EXPECT_TRUE(diagnosis.healthy()) << name << ": " << diagnosis.verdict;
  }
}

}  // namespace
}  // namespace llorch
