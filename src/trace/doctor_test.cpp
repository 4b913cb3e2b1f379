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
  template <typename T>
  T& op(Plan& plan, const char* step) const {
    return std::get<T>(plan.steps[static_cast<size_t>(plan.find_step(step))].op);
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
    EXPECT_EQ(d.checks.size(), 17u);
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
  const Diagnosis d = look_at({.plan = [&](Plan& plan) { op<RmsNorm>(plan, "layers.1.ffn_norm").eps = 1e-3f; }});
  EXPECT_EQ(d.step, "layers.1.ffn_norm");
  EXPECT_EQ(d.position, 0u);
  EXPECT_THAT(failed(d), testing::Contains("1 token"));
  EXPECT_THAT(d.verdict, HasSubstr("the step itself"));
}

TEST_F(Doctor, AMaskThatForgets) {
  const Diagnosis d = look_at({.plan = [&](Plan& plan) { op<Attention>(plan, "layers.1.attn").window = 20; }});
  EXPECT_EQ(d.step, "layers.1.attn");
  EXPECT_EQ(d.position, 20u);
  EXPECT_EQ(failed(d).front(), "33 tokens");
}

TEST_F(Doctor, AFusionThatIsWrong) {
  const Diagnosis d = look_at({.fused_plan = [&](Plan& plan) { op<RmsNorm>(plan, "layers.1.ffn_norm").eps = 1e-3f; },
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
  EXPECT_EQ(failed(d).front(), "128 tokens");
}

TEST_F(Doctor, LargeModelsAreCutAndItSaysSo) {
  const auto cpu = make_cpu_backend({1, ""});
  const uint64_t row = work_of_row(model_.plan);
  const Diagnosis d = look_at(*cpu, {.max_work = row * 20});
  EXPECT_TRUE(d.healthy()) << d.verdict;
  EXPECT_THAT(d.checks[0].sentence, HasSubstr("the first 1 of 2 layers"));
  EXPECT_THAT(d.checks[0].sentence, Not(HasSubstr("128 positions")));
}

TEST_F(Doctor, ItsTokensMayBeGiven) {
  const auto cpu = make_cpu_backend({1, ""});
  const Diagnosis d = look_at(*cpu, {.tokens = {5, 5, 5, 7, 9, 5, 5}});
  EXPECT_TRUE(d.healthy()) << d.verdict;
  EXPECT_THAT(d.checks[0].sentence, HasSubstr("7 positions"));
}

TEST_F(Doctor, OneTokenIsEnough) {
  const auto cpu = make_cpu_backend({1, ""});
  EXPECT_TRUE(look_at(*cpu, {.tokens = {5}}).healthy());
}

}  // namespace
}  // namespace llorch
