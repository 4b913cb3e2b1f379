// Whole models, bit for bit: every step of a backend against the reference, fused and unfused, and one sequence's
// logits against all that must not change them: company, chunks, threads, pages, instruction sets, devices.
#include "whole_model.h"

#include <gtest/gtest.h>

#include "backend/reference/reference_backend.h"
#include "backends_under_test.h"

namespace llorch {
namespace {

using test::Random;
using test::RunningSequence;
using test::WholeModel;

std::vector<uint32_t> scattered_pages(uint32_t n) {  // n not a multiple of 5
  std::vector<uint32_t> pages(n);
  for (uint32_t i = 0; i < n; ++i) pages[i] = (i * 5 + 3) % n;
  return pages;
}

// A prompt of one sequence and three decode steps. Every row wants logits.
std::vector<Batch> prompt_and_decodes(const Plan& plan, size_t prompt) {
  Random random(prompt);
  RunningSequence sequence(test::random_tokens(random, prompt + 3, plan.vocab), true);
  std::vector<uint32_t> pages = scattered_pages(9);
  std::vector<Batch> batches;
  for (uint32_t rows = static_cast<uint32_t>(prompt); sequence.left() > 0; rows = 1)
    sequence.add_rows(rows, 16, pages, batches.emplace_back());
  return batches;
}

std::vector<test::Outputs> outputs(Backend& backend, const WholeModel& model, bool all_steps,
                                   const std::vector<Batch>& batches) {
  const auto program = backend.compile(model.plan, backend.place(model.plan, model.source),
                                       {.kv = {.n_pages = 9, .page_size = 16}, .max_rows = 64, .poison = true});
  std::vector<test::Outputs> all;
  const StepSet shown(model.plan.steps.size(), all_steps);
  for (const Batch& batch : batches) all.push_back(test::run_and_show(*program, batch, shown));
  return all;
}

TEST(WholeModelConformance, EveryStepIsTheReferencesFusedOrNot) {
  LLORCH_SKIP_WITHOUT_BACKEND();
  const auto targets = test::backends_under_test();
  const auto reference = make_reference_backend();
  for (const WholeModel& model : test::whole_models()) {
    std::vector<Batch> batches;  // the sequences run one after another on the same pages
    for (const size_t prompt : {1, 2, 5, 33})
      for (Batch& batch : prompt_and_decodes(model.plan, prompt)) batches.push_back(std::move(batch));
    const auto want = outputs(*reference, model, true, batches);
    for (const test::Outputs& out : want)
      for (const float logit : out.back()) ASSERT_TRUE(std::isfinite(logit)) << model.name;
    for (const test::BackendUnderTest& target : targets) {
      SCOPED_TRACE(fmt::format("{} on {}", model.name, target.name));
      const auto tapped = outputs(*target.backend, model, true, batches);
      const auto fused = outputs(*target.backend, model, false, batches);
      for (size_t i = 0; i < batches.size(); ++i) {
        for (size_t s = 0; s < model.plan.steps.size(); ++s) {
          const uint32_t width = model.plan.slot(output_slot(model.plan.steps[s].op)).width;
          ASSERT_TRUE(test::same_bits(tapped[i][s], want[i][s], width))
              << "batch " << i << ", step " << model.plan.steps[s].name;
        }
        ASSERT_TRUE(test::same_bits(fused[i].back(), want[i].back(), model.plan.vocab)) << "fused, batch " << i;
      }
    }
  }
}

// How one sequence is run; nothing here may change its logits.
struct Way {
  uint32_t chunk;  // rows of prefill at once
  bool company;
  uint32_t page_size;
  bool scattered;

  std::string text() const {
    return fmt::format("chunks of {}, {}, {} pages of {}", chunk, company ? "in company" : "alone",
                       scattered ? "scattered" : "ascending", page_size);
  }
};

constexpr uint32_t kPrompt = 131, kLength = 136;  // three chunks of softmax

CompileOptions compile_options(uint32_t page_size) {
  return {.kv = {.n_pages = 640 / page_size + 1, .page_size = page_size},
          .max_rows = 256,
          .max_logit_rows = 192,
          .poison = true};
}

// The logits of all rows of the same sequence. In company, one that is prefilled stands before it and one that is
// decoded behind it, both of other tokens; they come and go.
std::vector<float> logits_of_sequence(Program& program, const Way& way) {
  const uint32_t vocab = program.plan().vocab;
  Random mine(1), others(2);
  RunningSequence sequence(test::random_tokens(mine, kLength, vocab), true);
  RunningSequence prefilled(test::random_tokens(others, 200, vocab), false);
  RunningSequence decoded(test::random_tokens(others, 180, vocab), true);
  std::vector<uint32_t> pages = scattered_pages(program.options().kv.n_pages);
  if (!way.scattered) std::sort(pages.begin(), pages.end());

  std::vector<float> all;
  for (uint32_t step = 0; sequence.left() > 0; ++step) {
    Batch batch;
    if (way.company) prefilled.add_rows(step == 0 ? 70 : 5, way.page_size, pages, batch);
    if (step % 3 == 1 && batch.rows() > 0) {  // in a batch of its own, of which no row wants logits
      EXPECT_TRUE(program.run(batch).empty());
      batch = {};
    }
    const uint32_t rows =
        sequence.done() < kPrompt ? std::min(way.chunk, kPrompt - sequence.done()) : 1;  // then one by one
    const size_t first_logits = batch.logit_rows.size() * vocab;
    sequence.add_rows(rows, way.page_size, pages, batch);
    if (way.company && step % 4 != 3) decoded.add_rows(step == 0 ? 20 : 1, way.page_size, pages, batch);
    const std::span<const float> logits = program.run(batch).subspan(first_logits, size_t{rows} * vocab);
    all.insert(all.end(), logits.begin(), logits.end());
  }
  return all;
}

TEST(WholeModelInvariance, LogitsOfASequenceDependOnItsTokensAlone) {
  LLORCH_SKIP_WITHOUT_BACKEND();
  const WholeModel model = test::whole_models().back();  // of mixed types
  const auto reference = make_reference_backend();
  const auto alone = reference->compile(model.plan, reference->place(model.plan, model.source), compile_options(64));
  const std::vector<float> want = logits_of_sequence(*alone, {kPrompt, false, 64, false});
  uint32_t n = 0;  // rotates through page sizes and orders, so that they meet all the rest
  for (const test::BackendUnderTest& target : test::backends_under_test()) {
    const auto weights = target.backend->place(model.plan, model.source);
    for (const uint32_t chunk : {1u, 3u, 16u, 64u, kPrompt})
      for (const bool company : {true, false}) {
        if (!target.is_typical && (!company || (test::is_short_set() && chunk != 16))) continue;  // for time
        constexpr uint32_t kPageSizes[] = {16, 32, 64};
        const Way way{chunk, company, kPageSizes[n % 3], n / 3 % 2 == 1};
        ++n;
        const auto program = target.backend->compile(model.plan, weights, compile_options(way.page_size));
        ASSERT_TRUE(test::same_bits(logits_of_sequence(*program, way), want, model.plan.vocab))
            << target.name << ", " << way.text();
      }
  }
}

// The check above would find a difference: a single token before changes the logits behind it.
TEST(WholeModelInvariance, LogitsDoDependOnEarlierTokens) {
  LLORCH_SKIP_WITHOUT_BACKEND();
  const WholeModel model = test::tiny_llama();
  const auto backend = test::one_backend();
  const auto program = backend->compile(model.plan, backend->place(model.plan, model.source), compile_options(64));
  std::vector<int32_t> tokens(100, 20);
  std::vector<float> last[2];
  for (int i = 0; i < 2; ++i) {
    tokens[0] = 30 + i;
    const auto logits = program->run(test::prompt(tokens, 64)).last(model.plan.vocab);
    last[i].assign(logits.begin(), logits.end());
  }
  EXPECT_FALSE(test::same_bits(last[0], last[1], model.plan.vocab));
}

}  // namespace
}  // namespace llorch
