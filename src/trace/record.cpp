#include "trace/record.h"

#include <algorithm>
#include <numeric>

#include "backend/slots.h"

namespace llorch {
namespace {

uint32_t pages_for(const SequenceRun& run, const KvShape& kv) {
  return (static_cast<uint32_t>(run.tokens.size()) + kv.page_size - 1) / kv.page_size;
}

Batch batch_of(const SequenceRun& run, const std::vector<uint32_t>& pages, uint32_t first, uint32_t n) {
  Batch batch;
  const auto begin = run.tokens.begin() + first;
  batch.tokens.assign(begin, begin + n);
  batch.sequences.push_back({0, n, first, 0, static_cast<uint32_t>(pages.size())});
  batch.pages = pages;
  if (first + n >= run.n_prompt) batch.logit_rows = {n - 1};
  return batch;
}

}  // namespace

void check_run(const SequenceRun& run, const Plan& plan, const CompileOptions& options) {
  const size_t n = run.tokens.size();
  if (n == 0) fail("tokens: expected at least one, got none");
  for (size_t i = 0; i < n; ++i)
    if (run.tokens[i] < 0 || static_cast<uint32_t>(run.tokens[i]) >= plan.vocab)
      fail("tokens: token {} at position {} is not in the vocabulary of {}", run.tokens[i], i, plan.vocab);
  if (run.n_prompt == 0 || run.n_prompt > n)
    fail("tokens: expected a prompt of 1 to {} of the {} tokens, got {}", n, n, run.n_prompt);
  if (n > plan.context()) fail("tokens: {} positions exceed the context of {}", n, plan.context());
  const uint32_t needed = pages_for(run, options.kv);
  const size_t given = run.pages.empty() ? options.kv.n_pages : run.pages.size();
  if (needed > given) fail("tokens: {} positions need {} KV pages, got {}", n, needed, given);
}

std::vector<Batch> batches_of(const SequenceRun& run, const Plan& plan, const CompileOptions& options) {
  check_run(run, plan, options);
  std::vector<uint32_t> pages = run.pages;
  if (pages.empty()) {
    pages.resize(pages_for(run, options.kv));
    std::iota(pages.begin(), pages.end(), 0u);
  }
  const uint32_t chunk = run.chunk == 0 ? options.max_rows : std::min(run.chunk, options.max_rows);
  const auto n_tokens = static_cast<uint32_t>(run.tokens.size());
  std::vector<Batch> batches;
  for (uint32_t first = 0, n = 0; first < n_tokens; first += n) {
    n = first < run.n_prompt ? std::min(chunk, run.n_prompt - first) : 1;
    batches.push_back(batch_of(run, pages, first, n));
  }
  return batches;
}

void trace_sequence(Program& program, const SequenceRun& run, const StepSet& steps, const RowVisitor& visit) {
  const std::vector<bool> gathered = gathered_steps(program.plan());
  for (const Batch& batch : batches_of(run, program.plan(), program.options())) {
    std::vector<uint32_t> positions(batch.rows());
    std::iota(positions.begin(), positions.end(), batch.sequences.front().first_position);
    program.trace(batch, steps, [&](size_t step, std::span<const float> output) {
      visit(step, gathered[step] ? std::span<const uint32_t>(positions).last(1) : positions, output);
    });
  }
}

Recording record_sequence(Program& program, const SequenceRun& run, const StepSet& steps) {
  Recording recording;
  recording.steps.resize(steps.size());
  trace_sequence(program, run, steps,
                 [&](size_t step, std::span<const uint32_t> positions, std::span<const float> output) {
                   Recording::Rows& rows = recording.steps[step];
                   rows.positions.insert(rows.positions.end(), positions.begin(), positions.end());
                   rows.values.insert(rows.values.end(), output.begin(), output.end());
                 });
  return recording;
}

}  // namespace llorch
