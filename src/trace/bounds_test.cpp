#include "trace/bounds.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "backend/cpu/cpu_backend.h"
#include "backend/reference/reference_backend.h"
#include "trace/diff_text.h"
#include "trace/faulty_backend_for_test.h"
#include "trace/outside_for_test.h"

namespace llorch {
namespace {

using test::Fault;
using test::FaultyBackend;
using testing::HasSubstr;

TraceInfo exact_info(const char* dtype, const char* kv_dtype = "f32") {
  TraceInfo info;
  info.numerics = "exact";
  info.kv_dtype = kv_dtype;
  info.tokens.resize(100);
  info.steps = {{"embed", "embed", dtype, ""}, {"layers.3.ffn_out", "linear", dtype, ""}};
  return info;
}

TraceInfo info_of(const char* numerics, const char* kv_dtype = "") {
  TraceInfo info;
  info.numerics = numerics;
  info.kv_dtype = kv_dtype;
  return info;
}

const TracedStep kNorm{"layers.0.attn_norm", "rms_norm", "f32", ""},
    kRope{"layers.0.rope_append", "rope_append", "f32", ""}, kAttn{"layers.0.attn", "attention", "f32", ""},
    kLogits{"logits", "linear", "bf16", ""};

TEST(Bounds, TheConditionsAreThoseOfBothTraces) {
  const BoundConditions c = bound_conditions(exact_info("q4_k"), info_of("outside"));
  EXPECT_FALSE(c.fast);
  EXPECT_FALSE(c.f16_kv);
  EXPECT_EQ(c.coarsest, DType::kQ4_K);
  EXPECT_EQ(c.n_layers, 4u);
  EXPECT_EQ(c.n_positions, 100u);
  EXPECT_TRUE(bound_conditions(exact_info("f16", "f16"), info_of("outside", "f32")).f16_kv);
  EXPECT_TRUE(bound_conditions(exact_info("f16", "f32"), info_of("outside", "f16")).f16_kv);
  EXPECT_TRUE(bound_conditions(exact_info("f16"), info_of("fast", "f32")).fast);
}

TEST(Bounds, WhatNoStepTellsIsTakenToBeTheWorst) {
  TraceInfo exact = exact_info("f32");
  exact.steps = {kNorm};
  EXPECT_TRUE(is_quantized(bound_conditions(exact, info_of("outside")).coarsest));
  EXPECT_EQ(bound_conditions(exact, info_of("fast")).coarsest, DType::kBF16);
  exact.steps = {kLogits};
  const BoundConditions unknown = bound_conditions(exact, info_of("outside")), known{.f16_kv = false, .n_layers = 4};
  EXPECT_GT(run_bound(kLogits, unknown), run_bound(kLogits, known));
  const TracedStep strange{"layers.0.something_new", "linear", "f32", ""},
      last{"layers.0.ffn_out", "linear", "f32", ""};
  EXPECT_GE(run_bound(strange, known), run_bound(last, known));
}

TEST(Bounds, KeysAndValuesMatterFromTheFirstAttentionOn) {
  const BoundConditions whole{.f16_kv = false, .n_layers = 2}, rounded{.f16_kv = true, .n_layers = 2};
  EXPECT_EQ(run_bound(kRope, whole), run_bound(kRope, rounded));
  EXPECT_GT(run_bound(kAttn, rounded), 1000 * run_bound(kAttn, whole));
  EXPECT_EQ(own_bound(kAttn, whole), own_bound(kAttn, rounded)) << "fed the same they are rounded to the same";
}

TEST(Bounds, DtypesPositionsLayersAndProductsDecide) {
  const BoundConditions plain{.f16_kv = false, .n_layers = 2};
  const auto linear = [&](const char* dtype, bool fast) {
    BoundConditions c = plain;
    c.fast = fast;
    return own_bound({"layers.0.qkv", "linear", dtype, ""}, c);
  };
  EXPECT_EQ(linear("f32", false), linear("bf16", false)) << "widened exactly";
  EXPECT_GT(linear("q4_0", false), 1000 * linear("f32", false));
  EXPECT_GT(linear("f16", true), 10 * linear("q4_0", false));
  EXPECT_GT(linear("bf16", true), 10 * linear("f16", true));
  BoundConditions longer = plain;
  longer.n_positions = 4096;
  EXPECT_GT(run_bound(kRope, longer), 100 * run_bound(kRope, plain));
  EXPECT_EQ(run_bound(kNorm, longer), run_bound(kNorm, plain));
  const TracedStep deep{"layers.1.attn_norm", "rms_norm", "f32", ""};
  EXPECT_GT(run_bound(deep, plain), 5 * run_bound(kNorm, plain));
}

TEST(Outside, SoundBackendsAreWithinTheBounds) {
  const auto cpu = make_cpu_backend({1, ""}), reference = make_reference_backend();
  for (Backend* backend : {cpu.get(), reference.get()}) {
    for (const DType kv : {DType::kF32, DType::kF16}) {
      const DiffReport report = test::diff_with_outside(*backend, kv);
      EXPECT_TRUE(report.same()) << to_text(report);
      EXPECT_FALSE(report.exact);
      EXPECT_EQ(report.steps.size(), 22u);
      EXPECT_TRUE(report.steps[0].equal) << "a bf16 row is widened exactly";
      EXPECT_THAT(verdict_text(report), HasSubstr("all 22 steps are within their bounds; the closest is layers."));
      EXPECT_THAT(verdict_text(report), testing::EndsWith("; the largest logit is the same one in 4 of 4 rows"));
    }
  }
}

template <typename T, typename Change>
Fault changed(Change change) {
  return {.plan = [change](Plan& plan) {
    for (Step& step : plan.steps)
      if (auto* op = std::get_if<T>(&step.op)) change(step.name, *op);
  }};
}

// Of a backend with this fault the first step that is not within its bound, with whole and with rounded keys and
// values.
std::string named(const Fault& fault) {
  FaultyBackend whole(make_cpu_backend({1, ""}), fault), rounded(make_cpu_backend({1, ""}), fault);
  const std::string name = test::first_outside_bounds(test::diff_with_outside(whole, DType::kF32));
  EXPECT_EQ(test::first_outside_bounds(test::diff_with_outside(rounded, DType::kF16)), name);
  return name;
}

TEST(Outside, FaultsAreNamedWhereTheyAre) {
  EXPECT_EQ(named(changed<Attention>([](const std::string&, Attention& op) { op.scale = 1; })), "layers.0.attn");
  EXPECT_EQ(named(changed<RmsNorm>([](const std::string&, RmsNorm& op) { op.eps *= 2; })), "layers.0.attn_norm");
  EXPECT_EQ(named(changed<Linear>([](const std::string& step, Linear& op) {
              if (step.ends_with("attn_out")) op.accumulate = false;
            })),
            "layers.0.attn_out");
  EXPECT_EQ(named(changed<Attention>([](const std::string&, Attention& op) { op.window = 4; })), "layers.0.attn");
  EXPECT_EQ(named({.batch =
                       [](Batch& batch, const KvShape&) {
                         for (Batch::Sequence& s : batch.sequences)
                           if (s.n_rows == 1) --s.first_position;
                       }}),
            "layers.0.rope_append");
  EXPECT_EQ(named({.plan = [](Plan& plan) { std::swap(plan.rope.cos, plan.rope.sin); }}), "layers.0.rope_append");
}

TEST(Outside, AFaultOfTheSecondLayerIsNotDrownedInTheFirstsRounding) {
  EXPECT_EQ(named(changed<Linear>([](const std::string& step, Linear& op) {
              if (step == "layers.1.ffn_out") op.accumulate = false;
            })),
            "layers.1.ffn_out");
  EXPECT_EQ(named(changed<Attention>([](const std::string&, Attention& op) {
              if (op.layer == 1) op.scale *= 1.01f;
            })),
            "layers.1.attn");
}

}  // namespace
}  // namespace llorch
