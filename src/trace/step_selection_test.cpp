#include "trace/step_selection.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "trace/tiny_model_for_test.h"

namespace llorch {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::vector<std::string> selected(const std::vector<std::string>& patterns, const std::string& layers = {}) {
  const test::TinyModel model;
  std::optional<LayerRange> range;
  if (!layers.empty()) range = parse_layers(layers);
  const StepSet steps = select_steps(model.plan, patterns, range);
  std::vector<std::string> names;
  for (size_t i = 0; i < steps.size(); ++i)
    if (steps[i]) names.push_back(model.plan.steps[i].name);
  return names;
}

std::string error(const std::vector<std::string>& patterns, const std::string& layers = {}) {
  try {
    selected(patterns, layers);
  } catch (const Error& e) {
    return e.what();
  }
  return "no error";
}

TEST(StepSelection, StarsStandForAnyText) {
  EXPECT_THAT(selected({"layers.*.attn"}), ElementsAre("layers.0.attn", "layers.1.attn"));
  EXPECT_THAT(selected({"layers.1.attn*"}), ElementsAre("layers.1.attn_norm", "layers.1.attn", "layers.1.attn_out"));
  EXPECT_THAT(selected({"*a*t*h*r", "embed"}), ElementsAre("embed", "gather"));
  EXPECT_THAT(selected({"*_norm"}, "1"), ElementsAre("layers.1.attn_norm", "layers.1.ffn_norm"));
  EXPECT_EQ(selected({"all"}), selected({}));
  EXPECT_EQ(selected({"*"}), selected({}));
}

TEST(StepSelection, LayersLeaveTheirOwnStepsOnly) {
  EXPECT_EQ(selected({}, "0..1").size(), selected({}).size() - 4);  // embed, gather, output_norm, logits
  EXPECT_EQ(selected({}, "0").size() * 2, selected({}, "0..1").size());
}

TEST(StepSelection, WhatSelectsNothingIsRefused) {
  EXPECT_THAT(error({"embed", "layers.9.attn"}), HasSubstr("no step of the plan fits \"layers.9.attn\""));
  EXPECT_THAT(error({"attn"}), HasSubstr("no step of the plan fits \"attn\""));
  EXPECT_THAT(error({}, "2..3"), HasSubstr("2..3 leave no step; the plan has 2"));
  for (const char* bad : {"", "..", "1..", "..1", "2..1", "a..b", "1...2", "-1"})
    EXPECT_THAT(error({}, bad[0] == '\0' ? "x" : bad), HasSubstr("expected A..B or A")) << bad;
}

}  // namespace
}  // namespace llorch
