#include "trace/by_itself.h"

#include <fmt/format.h>

#include <algorithm>

#include "backend/slots.h"
#include "trace/examiner.h"
#include "trace/local.h"

namespace llorch {
namespace {

struct StepsRun {
  SequenceRun run;
  uint32_t page_size;
  std::string text;
};

std::vector<StepsRun> runs_of(const std::vector<int32_t>& tokens) {
  constexpr uint32_t kChunk = 17;  // fills no tile of rows
  const auto n = static_cast<uint32_t>(tokens.size());
  std::vector<StepsRun> runs;
  const auto add = [&](uint32_t length, uint32_t n_decoded, uint32_t chunk, uint32_t page_size, std::string text) {
    SequenceRun run;
    run.tokens.assign(tokens.begin(), tokens.begin() + length);
    run.n_prompt = length - n_decoded;
    run.chunk = chunk;
    runs.push_back({std::move(run), page_size, std::move(text)});
  };
  add(n, 0, 0, 64, n == 1 ? "1 row" : fmt::format("{} rows", n));
  if (n > kChunk) add(n, std::min(4u, n - kChunk), kChunk, 16, fmt::format("batches of {}", kChunk));
  if (const uint32_t few = std::min(n, 33u); few > 1)
    add(few, few - std::min(5u, few - 1), 0, 32, fmt::format("decoded rows 1 to {}", few - 1));
  return runs;
}

// The truth of all positions as it would have been recorded of this run.
Recording truth_of(const StepsBench& bench, const SequenceRun& run) {
  const std::vector<bool> gathered = gathered_steps(bench.plan);
  const auto n = static_cast<ptrdiff_t>(run.tokens.size());
  Recording truth;
  truth.steps.reserve(bench.truth.steps.size());
  for (size_t i = 0; i < bench.truth.steps.size(); ++i) {
    const Recording::Rows& all = bench.truth.steps[i];
    const auto width = static_cast<ptrdiff_t>(bench.plan.slot(output_slot(bench.plan.steps[i].op)).width);
    const ptrdiff_t first = gathered[i] ? static_cast<ptrdiff_t>(run.n_prompt) - 1 : 0;
    truth.steps.push_back({{all.positions.begin() + first, all.positions.begin() + n},
                           {all.values.begin() + first * width, all.values.begin() + n * width}});
  }
  return truth;
}

Finding finding_of(const Plan& plan, const StepDiff& diff, const std::vector<uint32_t>& positions) {
  Finding finding;
  finding.step = diff.step;
  finding.verb = diff.verb;
  finding.n_rows = diff.rows;
  finding.first = *diff.first_difference;
  for (size_t r = 0; r < positions.size(); ++r)  // rows that differ by the sign of a zero have no error
    if (positions[r] == finding.first.position || diff.nmse_by_row[r] > 0.0) finding.positions.push_back(positions[r]);
  finding.to_the_end = positions.back() - finding.first.position + 1 == finding.positions.size();
  const Step& step = plan.steps[static_cast<size_t>(plan.find_step(diff.step))];
  finding.elements = elements_text(plan, step, finding.first.element, finding.first.element);
  return finding;
}

// "3 of 3 rms_norm, 1 of 9 linear".
std::string wrong_by_verb(const std::vector<StepDiff>& diffs) {
  std::vector<std::string> texts;
  for (const StepDiff& diff : diffs) {
    if (diff.equal) continue;
    const auto is_same = [&](const StepDiff& d) { return d.verb == diff.verb; };
    const auto all = std::count_if(diffs.begin(), diffs.end(), is_same);
    const auto wrong = std::count_if(diffs.begin(), diffs.end(), [&](const auto& d) { return is_same(d) && !d.equal; });
    std::string text = fmt::format("{} of {} {}", wrong, all, diff.verb);
    if (std::find(texts.begin(), texts.end(), text) == texts.end()) texts.push_back(std::move(text));
  }
  return fmt::format("{}", fmt::join(texts, ", "));
}

}  // namespace

std::optional<Finding> examine_steps(const StepsBench& bench) {
  for (const StepsRun& r : runs_of(bench.tokens)) {
    const CompileOptions options{.kv = {.page_size = r.page_size, .dtype = bench.kv_dtype},
                                 .max_rows = static_cast<uint32_t>(r.run.tokens.size()),
                                 .max_logit_rows = 1,
                                 .poison = true};
    const Recording truth = truth_of(bench, r.run);
    const std::vector<StepDiff> diffs =
        diff_local(bench.subject, bench.reference, {bench.plan, bench.source, r.run, options, truth},
                   StepSet(bench.plan.steps.size(), true));
    const auto wrong = std::find_if(diffs.begin(), diffs.end(), [](const StepDiff& d) { return !d.equal; });
    if (wrong == diffs.end()) continue;
    const auto index = static_cast<size_t>(wrong - diffs.begin());
    Finding finding = finding_of(bench.plan, *wrong, truth.steps[index].positions);
    finding.remark = fmt::format("wrong by themselves in the run of {}: {}", r.text, wrong_by_verb(diffs));
    return finding;
  }
  return std::nullopt;
}

std::string steps_text(const StepsBench& bench) {
  std::vector<std::string> texts;
  for (const StepsRun& r : runs_of(bench.tokens)) texts.push_back(r.text);
  return fmt::format("each of {} steps by itself, fed the reference's inputs: {}", bench.plan.steps.size(),
                     fmt::join(texts, ", "));
}

}  // namespace llorch
