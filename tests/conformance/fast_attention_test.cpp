// Attention in numeric mode fast beside the reference.
#include <functional>

#include "backend/reference/reference_backend.h"
#include "fast_backends.h"
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
using test::RunningSequence;
using test::Values;

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
  LLORCH_SKIP_WITHOUT_BACKEND();
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
  LLORCH_SKIP_WITHOUT_BACKEND();
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

}  // namespace
}  // namespace llorch
