// Every verb on every backend under test, bit for bit against the reference: random inputs with NaN, infinities and
// subnormals, poisoned activations and KV pages, sentinels behind every slot.
#include <gtest/gtest.h>

#include "backend/reference/reference_backend.h"
#include "backends_under_test.h"
#include "random_model.h"

namespace llorch {
namespace {

using test::Random;
using test::RandomWeights;
using test::Values;

constexpr uint32_t kRows[] = {1, 2, 5, 17, 131, 269};  // 269: kernels that take rows by the 252 begin anew
constexpr uint32_t kMaxRows = 288;

std::span<const uint32_t> rows_to_run() { return std::span(kRows).first(test::is_short_set() ? 4 : 6); }

class Conformance : public ::testing::Test {
 protected:
  static void SetUpTestSuite() { backends() = test::backends_under_test(); }
  static void TearDownTestSuite() { backends().clear(); }
  void SetUp() override { LLORCH_SKIP_WITHOUT_BACKEND(); }

  static std::vector<test::BackendUnderTest>& backends() {
    static std::vector<test::BackendUnderTest> backends;
    return backends;
  }

  static std::vector<test::Outputs> outputs(Backend& backend, const Plan& plan, const RandomWeights& weights,
                                            const CompileOptions& options, const StepSet& shown,
                                            const std::vector<Batch>& batches) {
    const auto program = backend.compile(plan, backend.place(plan, weights.source()), options);
    std::vector<test::Outputs> all;
    for (const Batch& batch : batches) all.push_back(test::run_and_show(*program, batch, shown));
    return all;
  }

  // Runs the batches in turn on the reference and on every target, compares the steps that are shown and the logits.
  void expect_same(const Plan& plan, const RandomWeights& weights, CompileOptions options, const StepSet& shown,
                   const std::vector<Batch>& batches) {
    options.poison = true;
    options.max_rows = kMaxRows;
    options.max_logit_rows = kMaxRows;
    const auto want = outputs(*reference_, plan, weights, options, shown, batches);
    for (const test::BackendUnderTest& target : backends()) {
      const auto got = outputs(*target.backend, plan, weights, options, shown, batches);
      for (size_t i = 0; i < batches.size(); ++i) {
        for (size_t s = 0; s < plan.steps.size(); ++s)
          ASSERT_TRUE(test::same_bits(got[i][s], want[i][s], plan.slot(output_slot(plan.steps[s].op)).width))
              << target.name << ", batch " << i << ", step " << plan.steps[s].name;
        ASSERT_TRUE(test::same_bits(got[i].back(), want[i].back(), plan.vocab)) << target.name << ", batch " << i;
      }
    }
  }

  // A plan that feeds random rows of `width` to `write`, which adds steps and returns the slot of the result.
  template <typename Write>
  void check_verb(uint32_t width, Values values, Write write) {
    RandomWeights weights(width * 7919 + static_cast<uint32_t>(values));
    PlanBuilder b(kMaxRows, 0, {}, {1024, 0, {}, {}});
    const SlotId x = b.slot("x", width);
    b.step("input", Embed{x, weights.table(b, "input", weights.random().values(kMaxRows * width, values), width)});
    const SlotId y = write(b, weights, x);
    const SlotId logits = b.slot("logits", kMaxRows);
    uint32_t y_width = out_width_;
    b.step("logits", Linear{y, logits, {weights.matrix(b, "head", DType::kF32, kMaxRows, y_width)}, {}, false});
    const Plan plan = std::move(b).build();
    for (const bool shown : {true, false}) {  // neighbours are fused where no step is shown
      std::vector<Batch> batches;
      for (const uint32_t rows : rows_to_run()) {
        std::vector<int32_t> tokens(rows);
        for (int32_t& t : tokens) t = static_cast<int32_t>(weights.random().below(kMaxRows));
        batches.push_back(test::prompt(tokens, 64));
      }
      expect_same(plan, weights, {.kv = {.n_pages = 8}}, StepSet(plan.steps.size(), shown), batches);
      if (HasFatalFailure()) return;
    }
  }

  uint32_t out_width_ = 0;
  std::unique_ptr<Backend> reference_ = make_reference_backend();
};

TEST_F(Conformance, Linear) {
  for (const DType dtype : kDTypes)
    for (const uint32_t k : {32u, 64u, 256u, 288u, 768u, 1000u})
      for (const Values values : {Values::kPlain, Values::kWithNonFinite}) {
        if (k % block_elements(dtype) != 0 || (k == 768 && block_elements(dtype) != 256)) continue;
        SCOPED_TRACE(fmt::format("{} k {}", to_string(dtype), k));
        check_verb(k, values, [&](PlanBuilder& b, RandomWeights& w, SlotId x) {
          out_width_ = 131 + 17 + 1;
          const SlotId y = b.slot("y", out_width_);
          const auto matrices = [&](const char* name) {
            return std::vector<WeightId>{w.matrix(b, fmt::format("{}0", name), dtype, 131, k),
                                         w.matrix(b, fmt::format("{}1", name), dtype, 17, k),
                                         w.matrix(b, fmt::format("{}2", name), dtype, 1, k)};
          };
          b.step("plain", Linear{x, y, matrices("a"), {}, false});
          b.step("residual", Linear{x, y, matrices("b"), {}, true});
          b.step(
              "bias",
              Linear{
                  x, y, matrices("c"), {w.vector(b, "c0b", 131), w.vector(b, "c1b", 17), w.vector(b, "c2b", 1)}, true});
          return y;
        });
        if (HasFatalFailure()) return;
      }
}

// More segments than a block of a device takes at once; groups that some devices give whole to a block, others by
// halves.
TEST_F(Conformance, LinearOfManySegments) {
  for (const DType dtype : {DType::kF16, DType::kQ8_0, DType::kQ5_1, DType::kQ6_K}) {
    SCOPED_TRACE(to_string(dtype));
    check_verb(25 * 256, Values::kPlain, [&](PlanBuilder& b, RandomWeights& w, SlotId x) {
      out_width_ = 40 + 33;
      const SlotId y = b.slot("y", out_width_);
      b.step("plain",
             Linear{x, y, {w.matrix(b, "a", dtype, 40, 25 * 256), w.matrix(b, "b", dtype, 33, 25 * 256)}, {}, false});
      return y;
    });
    if (HasFatalFailure()) return;
  }
}

TEST_F(Conformance, LinearOfMixedTypes) {
  check_verb(512, Values::kWide, [&](PlanBuilder& b, RandomWeights& w, SlotId x) {
    out_width_ = std::size(kDTypes) * 21;
    const SlotId y = b.slot("y", out_width_);
    std::vector<WeightId> stacked;
    for (const DType dtype : kDTypes) stacked.push_back(w.matrix(b, std::string(to_string(dtype)), dtype, 21, 512));
    b.step("mixed", Linear{x, y, stacked, {}, false});
    return y;
  });
}

TEST_F(Conformance, RmsNorm) {
  for (const uint32_t width : {1u, 15u, 16u, 31u, 33u, 48u, 576u, 2048u})
    for (const Values values : {Values::kPlain, Values::kWide, Values::kWithNonFinite}) {
      SCOPED_TRACE(width);
      check_verb(width, values, [&](PlanBuilder& b, RandomWeights& w, SlotId x) {
        out_width_ = width;
        const SlotId y = b.slot("y", width);
        b.step("norm", RmsNorm{x, y, w.vector(b, "weight", width), 1e-5f});
        return y;
      });
      if (HasFatalFailure()) return;
    }
}

TEST_F(Conformance, GatedAct) {
  for (const uint32_t width : {1u, 15u, 17u, 64u, 1536u})
    for (const Values values : {Values::kPlain, Values::kWide, Values::kWithNonFinite}) {
      SCOPED_TRACE(width);
      check_verb(2 * width, values, [&](PlanBuilder& b, RandomWeights&, SlotId x) {
        out_width_ = width;
        const SlotId y = b.slot("y", width);
        b.step("act", GatedAct{x, y, Activation::kSilu});
        return y;
      });
      if (HasFatalFailure()) return;
    }
}

TEST_F(Conformance, EmbedOfEveryType) {
  for (const DType dtype : kDTypes) {
    RandomWeights weights(5);
    PlanBuilder b(50, 0, {}, {1024, 0, {}, {}});
    const SlotId x = b.slot("x", 256), logits = b.slot("logits", 50);
    const WeightId table = weights.matrix(b, "table", dtype, 50, 256);
    b.step("embed", Embed{x, table, 0.37f});
    b.step("logits", Linear{x, logits, {table}, {}, false});  // tied
    const Plan plan = std::move(b).build();
    expect_same(plan, weights, {.kv = {.n_pages = 4}}, test::steps_named(plan, {"embed"}),
                {test::prompt({0, 49, 7, 16, 15, 31}, 64)});
  }
}

struct AttentionCase {
  Heads heads;
  uint32_t window;
};

// A layer of RopeAppend and Attention on random q|k|v rows; several sequences of different lengths, in chunks.
Plan attention_plan(RandomWeights& w, const AttentionCase& c, RopePairs pairs, Values values) {
  const Heads& h = c.heads;
  const uint32_t qkv_width = (h.n_heads + 2 * h.n_kv_heads) * h.head_dim, width = h.n_heads * h.head_dim;
  PlanBuilder b(kMaxRows, 2, h, test::random_rope(w.random(), 1024, h.head_dim / 2));
  const SlotId qkv = b.slot("qkv", qkv_width), y = b.slot("y", width), last = b.slot("last", width);
  const SlotId logits = b.slot("logits", kMaxRows);
  b.step("input", Embed{qkv, w.table(b, "input", w.random().values(kMaxRows * qkv_width, values), qkv_width)});
  for (uint32_t layer = 0; layer < 2; ++layer) {
    b.step(fmt::format("rope{}", layer), RopeAppend{qkv, layer, pairs});
    b.step(fmt::format("attn{}", layer), Attention{qkv, y, layer, 0.125f, c.window});
  }
  b.step("gather", GatherRows{y, last});
  b.step("logits", Linear{last, logits, {w.matrix(b, "head", DType::kF16, kMaxRows, width)}, {}, false});
  return std::move(b).build();
}

// Batches of three sequences that grow at different rates on scattered pages; some rows want logits.
std::vector<Batch> growing_batches(Random& random, uint32_t page_size, uint32_t n_pages) {
  std::vector<uint32_t> free_pages(n_pages);
  for (uint32_t i = 0; i < n_pages; ++i) free_pages[i] = (i * 7 + 3) % n_pages;
  struct Growing {
    uint32_t length = 0;
    std::vector<uint32_t> pages;
  } sequences[3];
  std::vector<Batch> batches;
  const uint32_t steps[][3] = {{131, 0, 1}, {1, 17, 1}, {5, 40, 1}, {1, 1, 1}, {60, 2, 70}, {1, 70, 1}, {0, 1, 0}};
  for (const auto& step : steps) {
    Batch batch;
    for (int s = 0; s < 3; ++s) {
      if (step[s] == 0) continue;
      Growing& g = sequences[s];
      while (g.pages.size() * page_size < g.length + step[s]) {
        g.pages.push_back(free_pages.back());
        free_pages.pop_back();
      }
      batch.sequences.push_back({batch.rows(), step[s], g.length, static_cast<uint32_t>(batch.pages.size()),
                                 static_cast<uint32_t>(g.pages.size())});
      batch.pages.insert(batch.pages.end(), g.pages.begin(), g.pages.end());
      for (uint32_t i = 0; i < step[s]; ++i) {
        if (i + 1 == step[s] || random.below(3) == 0) batch.logit_rows.push_back(batch.rows());
        batch.tokens.push_back(static_cast<int32_t>(random.below(kMaxRows)));
      }
      g.length += step[s];
    }
    batches.push_back(std::move(batch));
  }
  return batches;
}

TEST_F(Conformance, RopeAppendAndAttention) {
  const AttentionCase cases[] = {{{4, 2, 8}, 0},   {{9, 3, 64}, 0},   {{8, 1, 32}, 0},  {{5, 5, 80}, 0},
                                 {{20, 2, 16}, 0}, {{3, 1, 128}, 0},  {{2, 2, 256}, 0}, {{6, 3, 16}, 37},
                                 {{8, 2, 8}, 1},   {{4, 4, 24}, 100}, {{3, 3, 96}, 0},  {{8, 1, 64}, 70}};
  int combination = -1;
  for (const AttentionCase& c : cases)
    for (const uint32_t page_size : {16u, 32u, 64u})
      for (const DType kv : {DType::kF16, DType::kF32, DType::kQ8_0}) {
        ++combination;
        const bool is_usual =
            kv == DType::kF16 && page_size == 64 && c.heads.head_dim % 64 == 0;  // has kernels of its own
        if (test::is_short_set() && !is_usual && combination % 9 != combination / 9 * 2 % 9)
          continue;  // another of the nine with each case
        SCOPED_TRACE(fmt::format("{} heads on {} of {}, window {}, pages of {}, kv {}", c.heads.n_heads,
                                 c.heads.n_kv_heads, c.heads.head_dim, c.window, page_size, to_string(kv)));
        RandomWeights weights(c.heads.head_dim * 31 + page_size);
        const Values values = page_size == 32 ? Values::kWithNonFinite : Values::kWide;
        const Plan plan =
            attention_plan(weights, c, kv == DType::kF16 ? RopePairs::kInterleaved : RopePairs::kSplitHalves, values);
        const uint32_t n_pages = 40;
        expect_same(plan, weights, {.kv = {.n_pages = n_pages, .page_size = page_size, .dtype = kv}},
                    test::steps_named(plan, {"rope0", "attn0", "attn1", "gather"}),
                    growing_batches(weights.random(), page_size, n_pages));
        if (HasFatalFailure()) return;
      }
}

// Rows 3..69, which a backend may take by the eight: some of them straddle the chunks' border at 64. With a window of
// one position half of all maxima are negative, so that a chunk which a row does not see would show.
TEST_F(Conformance, AttentionOfNeighboursThatSeeOtherChunks) {
  RandomWeights weights(64);
  const Plan plan = attention_plan(weights, {{2, 2, 8}, 1}, RopePairs::kSplitHalves, Values::kPlain);
  std::vector<int32_t> tokens(70);
  for (int32_t& t : tokens) t = static_cast<int32_t>(weights.random().below(kMaxRows));
  Batch first = test::prompt({tokens.begin(), tokens.begin() + 3}, 16), second = test::prompt(tokens, 16);
  second.tokens.erase(second.tokens.begin(), second.tokens.begin() + 3);
  second.sequences[0].n_rows = 67;
  second.sequences[0].first_position = 3;
  second.logit_rows.resize(67);
  expect_same(plan, weights, {.kv = {.n_pages = 5}}, test::steps_named(plan, {"attn0", "attn1"}), {first, second});
}

}  // namespace
}  // namespace llorch
