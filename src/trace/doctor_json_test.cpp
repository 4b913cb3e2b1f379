#include "trace/doctor_json.h"

#include <gtest/gtest.h>

#include <limits>

namespace llorch {
namespace {

TEST(DoctorJson, SaysWhatWasFound) {
  Diagnosis d;
  d.subject = {"cpu", "a machine"};
  d.cut = {.n_layers = 2, .of_layers = 30, .n_positions = 70, .of_positions = 131, .n_whole_positions = 5};
  Check& check = d.checks.emplace_back();
  check.kind = CheckKind::kFusion;
  check.name = "fused";
  Finding& finding = check.finding.emplace();
  finding.step = "layers.0.qkv";
  finding.verb = "linear";
  finding.positions = {3, 4};
  finding.n_rows = 5;
  finding.first = {3, 17, std::numeric_limits<float>::quiet_NaN(), 1.0f};
  finding.fused = "layers.0.attn_norm";
  d.step = finding.step;
  d.position = 3;
  d.verdict = "a sentence";

  const auto out = nlohmann::json::parse(to_json(d).dump());
  EXPECT_EQ(out["healthy"], false);
  EXPECT_EQ(out["backend"]["device"], "a machine");
  EXPECT_EQ(out["cut"]["of_layers"], 30);
  EXPECT_EQ(out["cut"]["whole_positions"], 5);
  EXPECT_EQ(out["step"], "layers.0.qkv");
  EXPECT_EQ(out["position"], 3);
  EXPECT_EQ(out["verdict"], "a sentence");
  const nlohmann::json& found = out["checks"][0]["finding"];
  EXPECT_EQ(out["checks"][0]["kind"], "fusion");
  EXPECT_EQ(found["positions"], (std::vector<int>{3, 4}));
  EXPECT_EQ(found["rows"], 5);
  EXPECT_EQ(found["first"]["element"], 17);
  EXPECT_TRUE(found["first"]["got"]["value"].is_null());
  EXPECT_EQ(found["first"]["got"]["bits"], "7fc00000");
  EXPECT_EQ(found["first"]["expected"]["value"], 1.0);
  EXPECT_EQ(found["fused"], "layers.0.attn_norm");
  EXPECT_FALSE(found.contains("remark"));
}

TEST(DoctorJson, OfAHealthyBackendNoStepIsNamed) {
  Diagnosis d;
  Check& check = d.checks.emplace_back();
  check.passed = true;
  const nlohmann::json out = to_json(d);
  EXPECT_EQ(out["healthy"], true);
  EXPECT_FALSE(out.contains("step"));
  EXPECT_FALSE(out.contains("position"));
  EXPECT_FALSE(out["checks"][0].contains("finding"));
}

}  // namespace
}  // namespace llorch
