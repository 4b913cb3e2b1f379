#include "trace/sampling_check.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

namespace llorch {
namespace {

// So many that decodes of as many rows are recorded where a backend records them, and that a page holds them.
constexpr uint32_t kMaxSteps = 12, kPageSize = 16, kSequences = 2;
static_assert(kMaxSteps <= kPageSize);

constexpr SamplingParams kParams[kSequences] = {{.temperature = 0.0f},
                                                {.temperature = 1.5f, .top_k = 50, .top_p = 0.9f, .seed = 7}};
constexpr SamplingParams kPenalty = {.temperature = 2.0f, .repetition_penalty = 1.3f, .seed = 3};

using Tokens = std::array<int32_t, kSequences>;
using Rows = std::array<SampledRow, kSequences>;

uint32_t n_steps(const Plan& plan) { return std::min(kMaxSteps, plan.context()); }

// A row of each sequence, which has a page.
Batch decode(uint32_t position, const Tokens& tokens) {
  Batch batch;
  batch.tokens.assign(tokens.begin(), tokens.end());
  for (uint32_t s = 0; s < kSequences; ++s) {
    batch.sequences.push_back({s, 1, position, s, 1});
    batch.pages.push_back(s);
    batch.logit_rows.push_back(s);
  }
  return batch;
}

std::vector<RowSampling> sampling_at(uint32_t index) {
  std::vector<RowSampling> rows;
  for (const SamplingParams& params : kParams) rows.push_back({params, {}, index});
  return rows;
}

std::optional<Finding> compare(const SampledRow& got, const SampledRow& want, const SamplingParams& params,
                               uint32_t index, const char* how) {
  if (got.token == want.token && got.hash == want.hash && got.fault == want.fault) return std::nullopt;
  Finding finding;
  finding.remark = fmt::format("token {} at temperature {}, {}: {}, logits' hash {:016x}; expected {}, {:016x}", index,
                               params.temperature, how, got.token, got.hash, want.token, want.hash);
  return finding;
}

// Step by step; the rows go to `all`.
std::optional<Finding> one_by_one(Program& program, const CourseTokens& tokens, std::vector<Rows>& all) {
  const uint32_t vocab = program.plan().vocab;
  Sampler sampler(vocab);
  Tokens next = {tokens.watched.front(), tokens.other.front()};
  std::vector<int32_t> history;  // of the first sequence
  for (uint32_t step = 0; step < n_steps(program.plan()); ++step) {
    const Batch batch = decode(step, next);
    history.push_back(next[0]);
    const std::span<const float> shown = program.run(batch);
    const std::vector<float> logits(shown.begin(), shown.end());
    const auto row = [&](uint32_t s) { return std::span(logits).subspan(size_t{s} * vocab, vocab); };
    std::vector<RowSampling> sampling = sampling_at(step);
    Rows& rows = all.emplace_back();
    for (uint32_t s = 0; s < kSequences; ++s) rows[s] = sampler.sample_row(row(s), sampling[s]);
    const std::span<const SampledRow> sampled = program.sample(batch, sampling);
    for (uint32_t s = 0; s < kSequences; ++s)
      if (auto found = compare(sampled[s], rows[s], kParams[s], step, "drawn step by step")) return found;
    sampling[0] = {kPenalty, history, step};
    const SampledRow want = sampler.sample_row(row(0), sampling[0]);
    if (auto found = compare(program.sample(batch, sampling)[0], want, kPenalty, step, "with a repetition penalty"))
      return found;
    for (uint32_t s = 0; s < kSequences; ++s) next[s] = std::max(rows[s].token, 0);
  }
  return std::nullopt;
}

// The same with as many steps in flight as the program takes, each of which reads the tokens of the one before.
std::optional<Finding> ahead(Program& program, const CourseTokens& tokens, const std::vector<Rows>& all) {
  Tokens next = {tokens.watched.front(), tokens.other.front()};
  std::vector<Batch> batches(all.size());
  std::vector<std::vector<RowSampling>> sampling(all.size());
  std::optional<Finding> found;
  uint32_t n_finished = 0;
  const auto finish = [&] {
    const std::span<const SampledRow> sampled = program.finish();
    for (uint32_t s = 0; s < kSequences && !found; ++s)
      found = compare(sampled[s], all[n_finished][s], kParams[s], n_finished, "with a step in flight behind its own");
    ++n_finished;
  };
  for (uint32_t step = 0; step < all.size(); ++step) {
    batches[step] = decode(step, next);
    sampling[step] = sampling_at(step);
    program.start(batches[step], sampling[step]);
    if (step + 1 - n_finished == program.max_in_flight()) finish();
    for (uint32_t s = 0; s < kSequences; ++s)
      next[s] = n_finished > step ? std::max(all[step][s].token, 0) : token_of_row_in_flight(s);
  }
  while (n_finished < all.size()) finish();
  return found;
}

}  // namespace

std::optional<Finding> examine_sampling(const std::function<std::unique_ptr<Program>(const CompileOptions&)>& compile,
                                        const CourseTokens& tokens, DType kv_dtype) {
  const CompileOptions options = {.kv = {.n_pages = kSequences, .page_size = kPageSize, .dtype = kv_dtype},
                                  .max_rows = kSequences,
                                  .max_logit_rows = kSequences};
  std::vector<Rows> rows;
  const auto program = compile(options);
  if (auto found = one_by_one(*program, tokens, rows)) return found;
  if (program->max_in_flight() == 1) return std::nullopt;
  return ahead(*compile(options), tokens, rows);
}

std::string sampling_text(const Plan& plan) {
  return fmt::format("tokens of {} steps of two sequences, drawn one by one and, where it can, a step ahead",
                     n_steps(plan));
}

}  // namespace llorch
