#include "trace/diff_traces.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <functional>
#include <limits>

#include "format/safetensors_writer.h"
#include "trace/diff_json.h"
#include "trace/diff_text.h"
#include "trace/trace_metadata.h"

namespace llorch {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

TraceInfo some_info() {
  TraceInfo info;
  info.model = "tiny";
  info.model_hash = "0123456789abcdef";
  info.plan_hash = "fedcba9876543210";
  info.backend = "cpu";
  info.device = "a device";
  info.numerics = "exact";
  info.kv_dtype = "f16";
  info.build = "llorch test";
  info.tokens = {5, 6, 7};
  info.n_prompt = 2;
  info.steps = {{"embed", "embed", "bf16", "line 1"},
                {"layers.0.act", "gated_act", "f32", "line 2"},
                {"logits", "linear", "f16", "line 3"}};
  return info;
}

// Rows of a trace as a test states them; a step that is absent in the metadata is written all the same.
struct Written {
  TraceInfo info = some_info();
  std::map<std::string, std::vector<float>> values = {
      {"embed", {1, 2, 3, 4, 5, 6}}, {"layers.0.act", {1, 0, 2, 0, 3, 0}}, {"logits", {1, 2, 3, 6, 5, 4}}};
  std::map<std::string, int64_t> rows = {{"embed", 3}, {"layers.0.act", 3}, {"logits", 2}};

  TraceFile open() const {
    const std::filesystem::path path = testing::TempDir() + "llorch_diff_traces_" + std::to_string(::getpid());
    std::vector<Tensor> tensors;
    for (const auto& [name, data] : values)
      tensors.push_back({name,
                         DType::kF32,
                         {rows.at(name), static_cast<int64_t>(data.size()) / rows.at(name)},
                         std::as_bytes(std::span(data))});
    write_safetensors(path, tensors, to_metadata(info));
    TraceFile file(path);
    std::filesystem::remove(path);  // the mapping keeps it
    return file;
  }
};

DiffReport diff(const Written& a, const Written& b) { return diff_traces(a.open(), b.open()); }

std::vector<Mismatch> mismatches_of(const std::function<void(Written&)>& change) {
  Written b;
  change(b);
  return mismatches(Written().open(), b.open());
}

TEST(DiffTraces, EqualTracesAreEqualInPlanOrder) {
  const DiffReport report = diff({}, {});
  EXPECT_TRUE(report.same() && report.exact);
  ASSERT_EQ(report.steps.size(), 3u);
  EXPECT_EQ(report.steps[1].step, "layers.0.act");
  EXPECT_EQ(report.steps[1].text, "line 2");
  EXPECT_EQ(report.steps[2].first_position, 1u);
  EXPECT_EQ(report.steps[2].argmax_agree, 2u);
  EXPECT_THAT(to_text(report), HasSubstr("all 3 steps are equal, bit for bit"));
}

TEST(DiffTraces, TheFirstDifferingBitHasItsAddress) {
  Written a;
  a.values["layers.0.act"][3] = 0.25f;
  a.values["logits"][2] = std::numeric_limits<float>::quiet_NaN();
  const DiffReport report = diff(a, {});
  EXPECT_EQ(report.first, 1);
  EXPECT_EQ(verdict_text(report),
            "2 of 3 steps differ; the first: layers.0.act (layer 0, gated_act, f32 [3, 2]): position 1, element 1: a "
            "0.25 (0x3e800000), b 0 (0x00000000); 1 of 6 elements differ");
  EXPECT_THAT(to_text(report), HasSubstr("\n> layers.0.act "));
  EXPECT_THAT(to_text(report), HasSubstr("NaN at 1:2  argmax 1/2"));
  const auto json = to_json(report);
  EXPECT_EQ(json["first"], "layers.0.act");
  EXPECT_EQ(json["equal"], false);
  const auto& act = json["steps"][1];
  EXPECT_EQ(act["layer"], 0);
  EXPECT_EQ(act["differ"], 1);
  EXPECT_EQ(act["shape"], (std::vector<int>{3, 2}));
  EXPECT_EQ(act["first_difference"]["position"], 1);
  EXPECT_EQ(act["first_difference"]["a_bits"], "0x3e800000");
  const auto& logits = json["steps"][2];
  EXPECT_TRUE(logits["nmse"].is_null()) << "JSON has no infinity";
  EXPECT_EQ(logits["first_nan"]["element"], 2);
  EXPECT_EQ(json["steps"][0]["first_difference"], nullptr);
}

TEST(DiffTraces, StepsOfOneSideAreSaidAndTheOthersCompared) {
  Written b;
  b.values.erase("layers.0.act");
  b.info.steps.erase(b.info.steps.begin() + 1);
  const DiffReport report = diff({}, b);
  EXPECT_TRUE(report.same());
  EXPECT_EQ(report.steps.size(), 2u);
  EXPECT_THAT(report.only_a, ElementsAre("layers.0.act"));
  EXPECT_THAT(report.only_b, IsEmpty());
  EXPECT_THAT(diff(b, {}).only_b, ElementsAre("layers.0.act"));
  EXPECT_THAT(to_text(report), HasSubstr("1 step only in a, from layers.0.act on\n"));
}

TEST(DiffTraces, WhatCannotBeComparedIsNamedWithBothValues) {
  EXPECT_THAT(mismatches_of([](Written&) {}), IsEmpty());
  EXPECT_THAT(mismatches_of([](Written& b) { b.info.build = b.info.device = b.info.backend = "another"; }), IsEmpty());
  const auto one = [](const std::function<void(Written&)>& change) {
    const std::vector<Mismatch> found = mismatches_of(change);
    return found.size() == 1 ? fmt::format("{}: {} | {}", found[0].field, found[0].a, found[0].b)
                             : fmt::format("{} mismatches", found.size());
  };
  EXPECT_EQ(one([](Written& b) { b.info.model_hash = "ffff"; }), "model_hash: 0123456789abcdef (tiny) | ffff (tiny)");
  EXPECT_EQ(one([](Written& b) { b.info.plan_hash = "0000"; }), "plan_hash: fedcba9876543210 | 0000");
  EXPECT_EQ(one([](Written& b) { b.info.kv_dtype = to_string(DType::kF32); }), "kv_dtype: f16 | f32");
  EXPECT_EQ(one([](Written& b) { b.info.tokens[1] = 9; }), "tokens: 6 at position 1 of 3 | 9 at position 1 of 3");
  EXPECT_EQ(one([](Written& b) {
              b.info.tokens = {5, 6};
              b.info.n_prompt = 1;
              b.rows = {{"embed", 2}, {"layers.0.act", 2}, {"logits", 2}};
            }),
            "tokens: 7 at position 2 of 3 | 2 tokens");
  EXPECT_EQ(one([](Written& b) { b.rows["layers.0.act"] = 2; }), "step layers.0.act: [3, 2] | [2, 3]");
  EXPECT_EQ(one([](Written& b) {
              b.info.steps = {{"other", "embed", "f32", ""}};
              b.values = {{"other", {1, 2, 3}}};
              b.rows = {{"other", 3}};
            }),
            "steps: 3 from embed | 1 from other, none of them the same");
  const auto both = mismatches_of([](Written& b) { b.info.model_hash = b.info.plan_hash = "1111"; });
  EXPECT_EQ(both.size(), 2u);
  EXPECT_EQ(to_json(both)["mismatches"][1]["field"], "plan_hash");
  EXPECT_EQ(to_json(both)["comparable"], false);
}

Written outside() {
  Written b;
  TraceInfo info;
  info.backend = "another program";
  info.numerics = "outside";
  info.tokens = b.info.tokens;
  info.n_prompt = b.info.n_prompt;
  b.info = info;
  return b;
}

TEST(DiffTraces, OnlyTheExactSideMustSayWhatTheStepsAre) {
  Written b = outside();
  b.values["logits"][0] = 1.0000001f;
  for (const bool swap : {false, true}) {
    const DiffReport report = swap ? diff(b, {}) : diff({}, b);
    EXPECT_TRUE(report.same() && !report.exact);
    ASSERT_EQ(report.steps.size(), 3u);
    EXPECT_EQ(report.steps[1].verb, "gated_act");
    EXPECT_LT(report.steps[0].bound, report.steps[1].bound);
    EXPECT_FALSE(report.steps[2].equal);
    EXPECT_THAT(verdict_text(report), HasSubstr("all 3 steps are within their bounds; the closest is logits at "));
    EXPECT_EQ(to_json(report)["closest_to_bound"]["step"], "logits");
  }
  EXPECT_EQ(to_json(diff({}, {}))["closest_to_bound"], nullptr);
}

TEST(DiffTraces, ABoundIsBrokenByTheFirstStepThatIsBeyondIt) {
  Written b = outside();
  b.values["layers.0.act"] = {1, 0, 2, 0.5f, 3, 0};
  b.values["logits"][2] = std::numeric_limits<float>::infinity();
  const DiffReport report = diff({}, b);
  EXPECT_EQ(report.first, 1);
  EXPECT_THAT(verdict_text(report),
              testing::StartsWith("2 of 3 steps are not within their bounds; the first: layers.0.act (layer 0, "
                                  "gated_act, f32 [3, 2]): NMSE 0.0175, its bound "));
  EXPECT_THAT(verdict_text(report), HasSubstr("the largest difference is at position 1, element 1: a 0 (0x00000000), b "
                                              "0.5 (0x3f000000); 1 of 6 elements differ"));
  EXPECT_TRUE(to_json(report)["closest_to_bound"]["share"].is_null()) << "JSON has no infinity";
}

TEST(DiffTraces, OneSideMustBeExact) {
  const auto found = mismatches(outside().open(), outside().open());
  ASSERT_EQ(found.size(), 1u);
  EXPECT_EQ(found[0].field, "numerics, of which one must be exact");
  Written other = outside();
  other.info.kv_dtype = "f32";
  EXPECT_THAT(mismatches(Written().open(), other.open()), IsEmpty()) << "the bounds allow for it";
  Written fast;
  fast.info.numerics = "fast";
  EXPECT_THAT(mismatches(Written().open(), fast.open()), IsEmpty());
  EXPECT_GT(diff({}, fast).steps[2].bound, diff({}, outside()).steps[2].bound);
}

TEST(DiffTraces, NamesFromFilesCannotWriteToATerminal) {
  Written a;
  a.info.device = "\x1b[31mred";
  EXPECT_THAT(to_text(diff(a, {})), HasSubstr("\\x1b[31mred"));
}

}  // namespace
}  // namespace llorch
