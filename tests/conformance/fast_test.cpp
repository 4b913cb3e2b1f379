// Numeric mode fast beside the reference: batches of few rows bit for bit, many rows inside the bounds of
// docs/numerics.md, and the same bits again whatever else is in the batch.
#include <gtest/gtest.h>

#include <functional>

#include "backend/cuda/tiling.h"
#include "backend/reference/reference_backend.h"
#include "backends_under_test.h"
#include "trace/bounds.h"
#include "whole_model.h"

namespace llorch {
namespace {

using test::Random;
using test::RandomWeights;
using test::RunningSequence;
using test::Values;

constexpr uint32_t kMaxRows = 288;
constexpr uint32_t kRows[] = {17, 131, 5, 1, 2, 8, 9, 269};
std::span<const uint32_t> rows_to_run() { return std::span(kRows).first(test::is_short_set() ? 3 : 8); }
constexpr DType kTypes[] = {DType::kF16, DType::kBF16};
std::span<const DType> types_to_run() { return std::span(kTypes).first(test::is_short_set() ? 1 : 2); }
constexpr uint32_t kMostExactRows = 8;  // docs/numerics.md

std::vector<test::BackendUnderTest> fast_backends() {
  std::vector<test::BackendUnderTest> all = test::backends_under_test();
  std::erase_if(all, [](const auto& target) { return target.backend->why_not_fast().has_value(); });
  // The largest emulated device: there products of few tiles are cut along K.
  if (test::is_short_set() && all.size() > 1) all.erase(all.begin(), all.end() - 1);
  return all;
}

#define LLORCH_SKIP_WITHOUT_FAST() \
  LLORCH_SKIP_WITHOUT_BACKEND();   \
  if (fast_backends().empty()) GTEST_SKIP() << "no backend here is fast: " << *test::one_backend()->why_not_fast()

// Every row's NMSE is at most `bound`; where one side is not finite, the other is not.
::testing::AssertionResult is_near(std::span<const float> got, std::span<const float> want, size_t width,
                                   double bound) {
  if (got.size() != want.size())
    return ::testing::AssertionFailure() << got.size() << " values, expected " << want.size();
  for (size_t row = 0; row < got.size() / width; ++row) {
    double error = 0.0, square = 0.0;
    for (size_t i = row * width; i < (row + 1) * width; ++i) {
      if (std::isfinite(got[i]) != std::isfinite(want[i]))
        return ::testing::AssertionFailure()
               << fmt::format("row {} element {}: got {}, expected {}", row, i % width, got[i], want[i]);
      if (!std::isfinite(got[i])) continue;
      error += std::pow(double{got[i]} - double{want[i]}, 2);
      square += std::pow(double{want[i]}, 2);
    }
    if (error > bound * square)
      return ::testing::AssertionFailure() << fmt::format("row {}: NMSE {}, bound {}", row, error / square, bound);
  }
  return ::testing::AssertionSuccess();
}

CompileOptions options_of(Numerics numerics) {
  return {.kv = {.n_pages = 40, .page_size = 16},
          .numerics = numerics,
          .max_rows = kMaxRows,
          .max_logit_rows = kMaxRows,
          .poison = true};
}

BoundConditions fast_conditions(const Plan& plan) {
  TraceInfo exact, fast;
  exact.numerics = "exact";
  exact.kv_dtype = fast.kv_dtype = "f16";
  fast.numerics = "fast";
  exact.tokens.resize(kMaxRows);
  for (size_t i = 0; i < plan.steps.size(); ++i) exact.steps.push_back(traced_step(plan, i));
  return bound_conditions(exact, fast);
}

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
          const size_t step = std::min(s, plan.steps.size() - 1);
          const uint32_t columns = plan.slot(output_slot(plan.steps[step].op)).width;
          if (batches[i].rows() <= kMostExactRows)
            ASSERT_TRUE(test::same_bits(got[s], want[i][s], columns)) << plan.steps[step].name;
          else
            ASSERT_TRUE(is_near(got[s], want[i][s], columns, bound(step))) << plan.steps[step].name;
        }
        const test::Outputs again = test::run_and_show(*fast, batches[i], shown);
        ASSERT_TRUE(test::same_bits(again.back(), got.back(), plan.vocab)) << "the same batch again";
      }
    }
  }
}

TEST(FastConformance, Linear) {
  LLORCH_SKIP_WITHOUT_FAST();
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

// Norm, gate and up, activation, down and residual: with no step shown rows stay in 16 bits between the products.
TEST(FastConformance, FeedForward) {
  LLORCH_SKIP_WITHOUT_FAST();
  for (const DType dtype : {DType::kF16, DType::kBF16})
    for (const uint32_t ffn : {40u, 352u})
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
  LLORCH_SKIP_WITHOUT_FAST();
  const uint32_t k = 1000, n = 261;
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
  LLORCH_SKIP_WITHOUT_FAST();
  const uint32_t width = 712, ffn = 456;
  expect_shares(2 * 15, 12);
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
  LLORCH_SKIP_WITHOUT_FAST();
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

constexpr uint32_t kAttentionPositions = 1280;  // of all pages

// RopeAppend and Attention of three sequences that grow at different rates on scattered pages, in pages of NaN.
Plan attention_plan(RandomWeights& w, const Heads& h, uint32_t window) {
  const uint32_t qkv_width = (h.n_heads + 2 * h.n_kv_heads) * h.head_dim, width = h.n_heads * h.head_dim;
  PlanBuilder b(kMaxRows, 1, h, test::random_rope(w.random(), 1024, h.head_dim / 2));
  const SlotId qkv = b.slot("qkv", qkv_width), y = b.slot("y", width), logits = b.slot("logits", kMaxRows);
  b.step("input", Embed{qkv, w.table(b, "input", w.random().values(kMaxRows * qkv_width, Values::kPlain), qkv_width)});
  b.step("rope", RopeAppend{qkv, 0, RopePairs::kSplitHalves});
  b.step("attn", Attention{qkv, y, 0, 0.125f, window});
  b.step("logits", Linear{y, logits, {w.matrix(b, "head", DType::kF32, kMaxRows, width)}, {}, false});
  return std::move(b).build();
}

std::vector<Batch> growing_batches(Random& random, uint32_t page_size) {
  const uint32_t steps[][3] = {{131, 0, 1}, {1, 17, 1}, {5, 40, 1}, {1, 1, 1}, {60, 2, 70}};
  std::vector<RunningSequence> sequences;
  sequences.reserve(3);
  for (int s = 0; s < 3; ++s) sequences.emplace_back(test::random_tokens(random, 250, kMaxRows), true);
  std::vector<uint32_t> pages(kAttentionPositions / page_size);
  for (uint32_t i = 0; i < pages.size(); ++i) pages[i] = (i * 7 + 3) % static_cast<uint32_t>(pages.size());
  std::vector<Batch> batches;
  for (const auto& step : steps) {
    Batch& batch = batches.emplace_back();
    for (int s = 0; s < 3; ++s) sequences[static_cast<size_t>(s)].add_rows(step[s], page_size, pages, batch);
  }
  return batches;
}

// Prompts of twelve sequences of many lengths, then decodes of all of them.
std::vector<Batch> batches_of_decodes(Random& random, uint32_t page_size) {
  const uint32_t lengths[] = {1, 2, 15, 16, 17, 31, 33, 47, 64, 65, 100, 127};
  std::vector<uint32_t> pages(kAttentionPositions / page_size);
  for (uint32_t i = 0; i < pages.size(); ++i) pages[i] = (i * 7 + 3) % static_cast<uint32_t>(pages.size());
  std::vector<RunningSequence> sequences;
  std::vector<Batch> batches(1);
  for (const uint32_t length : lengths) {
    sequences.emplace_back(test::random_tokens(random, length + 3, kMaxRows), true);
    if (batches.back().rows() + length > kMaxRows) batches.emplace_back();
    sequences.back().add_rows(length, page_size, pages, batches.back());
  }
  for (int step = 0; step < 3; ++step) {
    Batch& batch = batches.emplace_back();
    for (RunningSequence& sequence : sequences) sequence.add_rows(1, page_size, pages, batch);
  }
  return batches;
}

void check_attention(const Heads& heads, uint32_t window, uint32_t page_size,
                     const std::function<std::vector<Batch>(Random&, uint32_t)>& make_batches) {
  SCOPED_TRACE(fmt::format("{} heads on {} of {}, window {}, pages of {}", heads.n_heads, heads.n_kv_heads,
                           heads.head_dim, window, page_size));
  const auto reference = make_reference_backend();
  RandomWeights weights(heads.head_dim * 31 + page_size);
  const Plan plan = attention_plan(weights, heads, window);
  const std::vector<Batch> batches = make_batches(weights.random(), page_size);
  CompileOptions options = options_of(Numerics::kFast);
  options.kv = {.n_pages = kAttentionPositions / page_size, .page_size = page_size};
  for (const test::BackendUnderTest& target : fast_backends()) {
    const auto fast = target.backend->compile(plan, target.backend->place(plan, weights.source()), options);
    CompileOptions exact_options = options;
    exact_options.numerics = Numerics::kExact;
    const auto exact = reference->compile(plan, reference->place(plan, weights.source()), exact_options);
    const auto attn = static_cast<size_t>(plan.find_step("attn"));
    const double bound = own_bound(traced_step(plan, attn), fast_conditions(plan));
    for (const Batch& batch : batches)
      for (const bool fused : {true, false}) {
        const StepSet shown = fused ? test::steps_named(plan, {"attn"}) : test::steps_named(plan, {"rope", "attn"});
        const test::Outputs want = test::run_and_show(*exact, batch, shown);
        const test::Outputs got = test::run_and_show(*fast, batch, shown);
        ASSERT_TRUE(is_near(got[attn], want[attn], heads.n_heads * heads.head_dim, 4 * bound))
            << target.name << ", batch of " << batch.rows() << (fused ? ", fused" : "");
      }
  }
}

TEST(FastConformance, Attention) {
  LLORCH_SKIP_WITHOUT_FAST();
  check_attention({9, 3, 64}, 0, 16, growing_batches);
  check_attention({8, 1, 32}, 0, 64, growing_batches);
  check_attention({5, 5, 80}, 0, 32, growing_batches);
  check_attention({3, 1, 128}, 37, 16, growing_batches);
  check_attention({20, 2, 64}, 0, 32, growing_batches);
  check_attention({2, 2, 256}, 0, 16, growing_batches);
  check_attention({4, 2, 24}, 0, 16, growing_batches);
  check_attention({3, 3, 96}, 100, 64, growing_batches);
}

TEST(FastConformance, AttentionOfDecodes) {
  LLORCH_SKIP_WITHOUT_FAST();
  check_attention({32, 4, 64}, 0, 64, batches_of_decodes);
  check_attention({11, 1, 64}, 0, 16, batches_of_decodes);
  check_attention({36, 2, 64}, 37, 32, batches_of_decodes);
  check_attention({8, 1, 32}, 0, 16, batches_of_decodes);
  check_attention({5, 5, 80}, 20, 32, batches_of_decodes);
  check_attention({3, 3, 96}, 100, 64, batches_of_decodes);
  check_attention({4, 2, 128}, 0, 16, batches_of_decodes);
  check_attention({12, 1, 128}, 50, 32, batches_of_decodes);
  check_attention({2, 2, 256}, 0, 16, batches_of_decodes);
}

// Every step of whole models is inside the bound of a run: a prompt, then a decoded token.
TEST(FastConformance, WholeModels) {
  LLORCH_SKIP_WITHOUT_FAST();
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
