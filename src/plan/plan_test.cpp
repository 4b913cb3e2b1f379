#include "plan/plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "plan/builder.h"
#include "plan/hash.h"

namespace llorch {
namespace {

using ::testing::HasSubstr;

RopeTable table(uint32_t context, uint32_t half_dim) {
  return {context, half_dim, std::vector<float>(context * half_dim, 1.0f),
          std::vector<float>(context * half_dim, 0.0f)};
}

// A one-layer plan whose pieces tests replace with wrong ones.
struct Parts {
  Heads heads{4, 2, 8};
  int64_t qkv_cols = 32;
  uint32_t logits_width = 50;
  bool write_residual = true;
  std::string second_name = "norm";

  Plan build() const {
    PlanBuilder b(50, 1, heads, table(16, heads.head_dim / 2));
    const SlotId residual = b.slot("residual", 32), normed = b.slot("normed", 32), qkv = b.slot("qkv", 64);
    const SlotId attn = b.slot("attn", 32), last = b.slot("last", 32), logits = b.slot("logits", logits_width);
    if (write_residual) b.step("embed", Embed{residual, b.weight("embd", DType::kF32, {50, 32})});
    b.step(second_name, RmsNorm{residual, normed, b.weight("norm_w", DType::kF32, {32}), 1e-5f});
    b.step("qkv", Linear{normed, qkv, {b.weight("qkv_w", DType::kF16, {64, qkv_cols})}, {}, false});
    b.step("rope", RopeAppend{qkv, 0, RopePairs::kInterleaved});
    b.step("attn", Attention{qkv, attn, 0, 0.5f});
    b.step("out", Linear{attn, residual, {b.weight("o_w", DType::kF16, {32, 32})}, {}, true});
    b.step("gather", GatherRows{residual, last});
    b.step("logits", Linear{last, logits, {b.weight("embd", DType::kF32, {50, 32})}, {}, false});
    return std::move(b).build();
  }

  std::string error() const {
    try {
      build();
    } catch (const Error& e) {
      return e.what();
    }
    return "no error";
  }
};

TEST(Plan, ValidPlanPrintsOneLineAStep) {
  const Plan plan = Parts{}.build();
  const std::string text = to_text(plan);
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 9);
  EXPECT_THAT(text, HasSubstr("residual[32] += attn[32] x o_w f16 [32, 32]"));
  EXPECT_EQ(plan.weights.size(), 4u);  // the tied embedding is one weight
  EXPECT_EQ(plan.find_step("rope"), 3);
  EXPECT_EQ(plan.find_step("none"), -1);
}

TEST(Plan, HashIsThatOfWhatDecidesAResult) {
  const Plan plan = Parts{}.build();
  const uint64_t hash = plan_hash(plan);
  EXPECT_EQ(plan_hash(plan), hash);
  Plan other = plan;
  other.rope.context += 1;  // the same first positions
  EXPECT_EQ(plan_hash(other), hash);
  other = plan;
  other.rope.sin.at(1) += 1e-6f;
  EXPECT_NE(plan_hash(other), hash);
  other = plan;
  for (Step& step : other.steps)
    if (auto* norm = std::get_if<RmsNorm>(&step.op)) norm->eps *= 1.0001f;
  EXPECT_NE(plan_hash(other), hash);
}

TEST(Plan, ErrorsNameStepExpectedAndGot) {
  EXPECT_EQ(Parts{}.error(), "no error");
  EXPECT_THAT((Parts{.qkv_cols = 31}.error()), HasSubstr("qkv: weight qkv_w has shape [64, 31], expected [rows, 32]"));
  EXPECT_THAT((Parts{.logits_width = 51}.error()), HasSubstr("logits: stacked weight rows 50 != slot width 51"));
  EXPECT_THAT((Parts{.write_residual = false}.error()), HasSubstr("norm: slot residual is read before it is written"));
  EXPECT_THAT((Parts{.second_name = "embed"}.error()), HasSubstr("embed: step name is not unique"));
  EXPECT_THAT((Parts{.heads = {3, 2, 8}}.error()), HasSubstr("3 heads are no multiple of 2"));
}

}  // namespace
}  // namespace llorch
