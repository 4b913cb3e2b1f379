// Numeric mode fast beside the reference: batches of few rows bit for bit, many rows inside the bounds of
// docs/numerics.md, and the same bits again whatever else is in the batch.
#include <gtest/gtest.h>

#include "backend/cuda/tiling.h"
#include "backend/reference/reference_backend.h"
#include "fast_backends.h"
#include "tensor/blocks.h"
#include "whole_model.h"

namespace llorch {
namespace {

using test::fast_backends;
using test::fast_conditions;
using test::is_near;
using test::kMaxRows;
using test::options_of;
using test::Random;
using test::RandomWeights;
using test::Values;

constexpr uint32_t kRows[] = {17, 131, 5, 1, 2, 8, 9, 269};
std::span<const uint32_t> rows_to_run() { return std::span(kRows).first(test::is_short_set() ? 3 : 8); }
// K of no more than 32 in a block.
constexpr DType kTypes[] = {DType::kF16, DType::kQ4_1, DType::kBF16, DType::kQ8_0, DType::kQ5_0};
std::span<const DType> types_to_run() { return std::span(kTypes).first(test::is_short_set() ? 2 : 5); }
constexpr uint32_t kMostExactRows = 8;  // docs/numerics.md

std::vector<Batch> prompts(Random& random, std::span<const uint32_t> all_rows) {
  std::vector<Batch> batches;
  for (const uint32_t rows : all_rows) {
    std::vector<int32_t> tokens(rows);
    for (int32_t& t : tokens) t = static_cast<int32_t>(random.below(kMaxRows));
    batches.push_back(test::prompt(tokens, 16));
  }
  return batches;
}

// Rows of a table go through the steps that `write` adds. is_chain: each is fed what the one before has made.
template <typename Write>
void check_steps(uint32_t width, Values values, bool is_chain, Write write,
                 std::span<const uint32_t> rows = rows_to_run()) {
  RandomWeights weights(width * 31 + static_cast<uint32_t>(values));
  PlanBuilder b(kMaxRows, 0, {}, {1024, 0, {}, {}});
  const SlotId x = b.slot("x", width);
  b.step("input", Embed{x, weights.table(b, "input", weights.random().values(kMaxRows * width, values), width)});
  write(b, weights, x);
  const Plan plan = std::move(b).build();
  const BoundConditions conditions = fast_conditions(plan);
  const auto bound = [&](size_t step) {  // in a chain the last step is a product, and eight cover what all add
    return is_chain ? 8 * own_bound(traced_step(plan, plan.steps.size() - 1), conditions)
                    : own_bound(traced_step(plan, step), conditions);
  };
  // A row of random blocks is one weight plus noise. Where its inputs happen to add up to little, so does the result,
  // and its error does not: the results of all rows are one.
  const bool is_of_blocks =
      std::any_of(plan.weights.begin(), plan.weights.end(), [](const Weight& w) { return is_quantized(w.dtype); });
  const std::vector<Batch> batches = prompts(weights.random(), rows);
  const auto reference = make_reference_backend();
  for (const bool all : {true, false}) {
    const StepSet shown(plan.steps.size(), all);
    const auto exact = reference->compile(plan, reference->place(plan, weights.source()), options_of(Numerics::kExact));
    std::vector<test::Outputs> want;
    want.reserve(batches.size());
    for (const Batch& batch : batches) want.push_back(test::run_and_show(*exact, batch, shown));
    for (const test::BackendUnderTest& target : fast_backends()) {
      const auto fast =
          target.backend->compile(plan, target.backend->place(plan, weights.source()), options_of(Numerics::kFast));
      for (size_t i = 0; i < batches.size(); ++i) {
        SCOPED_TRACE(fmt::format("{}, {} rows, {}", target.name, batches[i].rows(), all ? "steps shown" : "fused"));
        const test::Outputs got = test::run_and_show(*fast, batches[i], shown);
        for (size_t s = 0; s < got.size(); ++s) {
          if (got[s].empty()) continue;  // not shown
          const size_t step = std::min(s, plan.steps.size() - 1);
          const uint32_t columns = plan.slot(output_slot(plan.steps[step].op)).width;
          if (batches[i].rows() <= kMostExactRows)
            ASSERT_TRUE(test::same_bits(got[s], want[i][s], columns)) << plan.steps[step].name;
          else
            ASSERT_TRUE(is_near(got[s], want[i][s], is_of_blocks ? got[s].size() : columns, bound(step)))
                << plan.steps[step].name;
        }
        const test::Outputs again = test::run_and_show(*fast, batches[i], shown);
        ASSERT_TRUE(test::same_bits(again.back(), got.back(), plan.vocab)) << "the same batch again";
      }
    }
  }
}

TEST(FastConformance, Linear) {
  LLORCH_SKIP_WITHOUT_BACKEND();
  for (const DType dtype : {DType::kF16, DType::kBF16})
    for (const uint32_t k : {32u, 64u, 72u, 288u, 1000u})
      for (const Values values : {Values::kPlain, Values::kWide, Values::kWithNonFinite}) {
        if (test::is_short_set() && k != 72 && (k != 288 || dtype == DType::kBF16)) continue;
        SCOPED_TRACE(fmt::format("{} k {}", to_string(dtype), k));
        check_steps(k, values, false, [&](PlanBuilder& b, RandomWeights& w, SlotId x) {
          const SlotId y = b.slot("y", kMaxRows);
          const auto matrices = [&](const char* name) {
            return std::vector<WeightId>{w.matrix(b, fmt::format("{}0", name), dtype, 131, k),
                                         w.matrix(b, fmt::format("{}1", name), dtype, 156, k),
                                         w.matrix(b, fmt::format("{}2", name), dtype, 1, k)};
          };
          b.step("plain", Linear{x, y, matrices("a"), {}, false});
          b.step("residual", Linear{x, y, matrices("b"), {}, true});
          b.step("bias", Linear{x,
                                y,
                                matrices("c"),
                                {w.vector(b, "c0b", 131), w.vector(b, "c1b", 156), w.vector(b, "c2b", 1)},
                                true});
        });
        if (testing::Test::HasFatalFailure()) return;
      }
}

// Rows of K end in the middle of a stage or at its end; stacked matrices may have types of their own.
TEST(FastConformance, LinearOfBlocks) {
  LLORCH_SKIP_WITHOUT_BACKEND();
  struct Case {
    std::vector<DType> dtypes;
    uint32_t k;
  };
  std::vector<Case> cases;
  for (const DType dtype : kDTypes) {
    if (!is_quantized(dtype)) continue;
    if (block_elements(dtype) == 32)
      cases.insert(cases.end(), {{{dtype}, 32}, {{dtype}, 288}, {{dtype}, 992}});
    else
      cases.insert(cases.end(), {{{dtype}, 256}, {{dtype}, 768}});
  }
  cases.push_back({{DType::kQ4_K, DType::kQ6_K, DType::kQ5_0}, 512});
  for (const Case& c : cases)
    for (const Values values : {Values::kPlain, Values::kWide, Values::kWithNonFinite}) {
      if (test::is_short_set() && (c.k > 512 || c.k == 32 || values == Values::kWide)) continue;
      SCOPED_TRACE(fmt::format("{} k {}", to_string(c.dtypes[0]), c.k));
      check_steps(
          c.k, values, false,
          [&](PlanBuilder& b, RandomWeights& w, SlotId x) {
            const SlotId y = b.slot("y", kMaxRows);
            const auto matrices = [&](const char* name) {
              std::vector<WeightId> all;
              for (const int64_t n : {131, 156, 1})
                all.push_back(
                    w.matrix(b, fmt::format("{}{}", name, n), c.dtypes[all.size() % c.dtypes.size()], n, c.k));
              return all;
            };
            b.step("plain", Linear{x, y, matrices("a"), {}, false});
            b.step("residual", Linear{x,
                                      y,
                                      matrices("b"),
                                      {w.vector(b, "b0b", 131), w.vector(b, "b1b", 156), w.vector(b, "b2b", 1)},
                                      true});
          },
          test::is_short_set() ? std::span(kRows).first(1) : rows_to_run());
      if (testing::Test::HasFatalFailure()) return;
    }
}

// Norm, gate and up, activation, down and residual: with no step shown rows stay in 16 bits between the products.
TEST(FastConformance, FeedForward) {
  LLORCH_SKIP_WITHOUT_BACKEND();
  for (const DType dtype : {DType::kF16, DType::kBF16, DType::kQ8_0, DType::kQ4_0})
    for (const uint32_t ffn : {is_quantized(dtype) ? 96u : 40u, 352u})
      for (const bool has_bias : {false, true}) {
        SCOPED_TRACE(fmt::format("{}, {} wide{}", to_string(dtype), ffn, has_bias ? ", biases" : ""));
        check_steps(kMaxRows, Values::kPlain, true, [&](PlanBuilder& b, RandomWeights& w, SlotId x) {
          const SlotId normed = b.slot("normed", kMaxRows), gate_up = b.slot("gate_up", 2 * ffn);
          const SlotId act = b.slot("act", ffn);
          std::vector<WeightId> biases;
          if (has_bias) biases = {w.vector(b, "gate_bias", ffn), w.vector(b, "up_bias", ffn)};
          b.step("norm", RmsNorm{x, normed, w.vector(b, "norm", kMaxRows), 1e-5f});
          b.step("gate_up", Linear{normed,
                                   gate_up,
                                   {w.matrix(b, "gate", dtype, ffn, kMaxRows), w.matrix(b, "up", dtype, ffn, kMaxRows)},
                                   biases,
                                   false});
          b.step("act", GatedAct{gate_up, act, Activation::kSilu});
          b.step("down", Linear{act, x, {w.matrix(b, "down", dtype, kMaxRows, ffn)}, {}, true});
        });
        if (testing::Test::HasFatalFailure()) return;
      }
}

// Products whose K is cut in shares: on one of the emulated devices another block comes last each time.
constexpr uint32_t kRowsOfShares[] = {9, 17, 40, 131, 269};
void expect_shares(int32_t n_groups, int32_t n_stages) {
  for (const uint32_t rows : kRowsOfShares)
    EXPECT_GT(cuda::choose_tiling({static_cast<int32_t>(rows), n_groups, n_stages}, 132).n_shares, 1) << rows;
}

TEST(FastConformance, SharesOfLinear) {
  LLORCH_SKIP_WITHOUT_BACKEND();
  const uint32_t k = 992, n = 261;
  expect_shares(9 + 1, 16);
  for (const DType dtype : types_to_run())
    check_steps(
        k, Values::kWithNonFinite, false,
        [&](PlanBuilder& b, RandomWeights& w, SlotId x) {
          const SlotId y = b.slot("y", kMaxRows);
          const auto matrices = [&](const char* name) {
            return std::vector<WeightId>{w.matrix(b, fmt::format("{}0", name), dtype, n, k),
                                         w.matrix(b, fmt::format("{}1", name), dtype, kMaxRows - n, k)};
          };
          b.step("plain", Linear{x, y, matrices("a"), {}, false});
          b.step("bias", Linear{x, y, matrices("b"), {w.vector(b, "b0b", n), w.vector(b, "b1b", kMaxRows - n)}, true});
        },
        kRowsOfShares);
}

// Gate and up, and down, each in shares; with no step shown and many rows the norm behind them adds those of down.
TEST(FastConformance, SharesOfFeedForward) {
  LLORCH_SKIP_WITHOUT_BACKEND();
  const uint32_t width = 704, ffn = 448;
  expect_shares(2 * 14, 11);
  for (const DType dtype : types_to_run())
    check_steps(
        width, Values::kPlain, true,
        [&](PlanBuilder& b, RandomWeights& w, SlotId x) {
          const SlotId normed = b.slot("normed", width), gate_up = b.slot("gate_up", 2 * ffn);
          const SlotId act = b.slot("act", ffn), y = b.slot("y", kMaxRows);
          b.step("norm", RmsNorm{x, normed, w.vector(b, "norm", width), 1e-5f});
          b.step("gate_up", Linear{normed,
                                   gate_up,
                                   {w.matrix(b, "gate", dtype, ffn, width), w.matrix(b, "up", dtype, ffn, width)},
                                   {w.vector(b, "gate_bias", ffn), w.vector(b, "up_bias", ffn)},
                                   false});
          b.step("act", GatedAct{gate_up, act, Activation::kSilu});
          b.step("down",
                 Linear{act, x, {w.matrix(b, "down", dtype, width, ffn)}, {w.vector(b, "down_b", width)}, true});
          b.step("output_norm", RmsNorm{x, normed, w.vector(b, "output_norm", width), 1e-5f});
          b.step("logits", Linear{normed, y, {w.matrix(b, "head", dtype, kMaxRows, width)}, {}, false});
        },
        kRowsOfShares);
}

// In a batch of so many rows a row's bits do not depend on the others, nor on its place among them.
TEST(FastConformance, RowsDoNotDependOnTheirCompany) {
  LLORCH_SKIP_WITHOUT_BACKEND();
  RandomWeights weights(5);
  PlanBuilder b(kMaxRows, 0, {}, {1024, 0, {}, {}});
  const SlotId x = b.slot("x", 512), y = b.slot("y", kMaxRows);
  b.step("input", Embed{x, weights.table(b, "input", weights.random().values(kMaxRows * 512, Values::kPlain), 512)});
  b.step("linear", Linear{x, y, {weights.matrix(b, "w", DType::kF16, kMaxRows, 512)}, {}, false});
  const Plan plan = std::move(b).build();
  for (const test::BackendUnderTest& target : fast_backends()) {
    const auto program =
        target.backend->compile(plan, target.backend->place(plan, weights.source()), options_of(Numerics::kFast));
    for (const uint32_t n : {9u, 40u, 140u}) {
      std::vector<int32_t> tokens(n);
      for (uint32_t i = 0; i < n; ++i) tokens[i] = static_cast<int32_t>(i);
      const std::span<const float> shown = program->run(test::prompt(tokens, 16));
      const std::vector<float> first(shown.begin(), shown.begin() + kMaxRows);
      for (uint32_t i = 0; i < n; ++i) tokens[i] = static_cast<int32_t>(n - 1 - i) * 2;
      EXPECT_TRUE(test::same_bits(program->run(test::prompt(tokens, 16)).last(kMaxRows), first, kMaxRows))
          << target.name << ", " << n << " rows";
    }
  }
}

// Every step of whole models is inside the bound of a run: a prompt, then a decoded token.
TEST(FastConformance, WholeModels) {
  LLORCH_SKIP_WITHOUT_BACKEND();
  const auto reference = make_reference_backend();
  for (const test::WholeModel& model : test::whole_models()) {
    const BoundConditions conditions = fast_conditions(model.plan);
    const StepSet all(model.plan.steps.size(), true);
    Random random(3);
    const std::vector<int32_t> tokens = test::random_tokens(random, 140, model.plan.vocab);
    const Batch batch = test::prompt(tokens, 16);
    const auto exact =
        reference->compile(model.plan, reference->place(model.plan, model.source), options_of(Numerics::kExact));
    const test::Outputs want = test::run_and_show(*exact, batch, all);
    for (const test::BackendUnderTest& target : fast_backends()) {
      SCOPED_TRACE(fmt::format("{} on {}", model.name, target.name));
      const auto fast = target.backend->compile(model.plan, target.backend->place(model.plan, model.source),
                                                options_of(Numerics::kFast));
      for (const bool shown : {true, false}) {
        const test::Outputs got = test::run_and_show(*fast, batch, StepSet(model.plan.steps.size(), shown));
        for (size_t s = 0; s < got.size(); ++s) {
          if (got[s].empty()) continue;
          const size_t step = std::min(s, model.plan.steps.size() - 1);
          // All rows as one: the bound is that of a run, not of its worst row.
          ASSERT_TRUE(is_near(got[s], want[s], want[s].size(), run_bound(traced_step(model.plan, step), conditions)))
              << model.plan.steps[step].name << (shown ? "" : ", fused");
        }
      }
    }
  }
}

TEST(FastConformance, BackendsWithoutItRefuseIt) {
  const auto reference = make_reference_backend();
  const test::WholeModel model = test::tiny_llama();
  EXPECT_THROW(reference->compile(model.plan, reference->place(model.plan, model.source), options_of(Numerics::kFast)),
               Error);
}

}  // namespace
}  // namespace llorch
