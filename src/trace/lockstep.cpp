#include "trace/lockstep.h"

#include <algorithm>
#include <numeric>
#include <vector>

#include "backend/slots.h"
#include "trace/diff.h"

namespace llorch {
namespace {

constexpr uint32_t kChunk = 64;

}  // namespace

std::optional<StepDiff> first_difference(Program& a, Program& b, SequenceRun run) {
  const Plan& plan = a.plan();
  const StepSet all(plan.steps.size(), true);
  const std::vector<bool> gathered = gathered_steps(plan);
  run.chunk = std::min(kChunk, a.options().max_rows);
  for (const Batch& batch : batches_of(run, plan, a.options())) {
    std::vector<std::vector<float>> of_a(plan.steps.size());
    a.trace(batch, all,
            [&](size_t step, std::span<const float> output) { of_a[step].assign(output.begin(), output.end()); });
    std::vector<uint32_t> positions(batch.rows());
    std::iota(positions.begin(), positions.end(), batch.sequences.front().first_position);
    std::optional<StepDiff> found;
    b.trace(batch, all, [&](size_t step, std::span<const float> output) {
      if (found) return;
      StepDiff diff = diff_step({.what = traced_step(plan, step),
                                 .positions = gathered[step] ? std::span(positions).last(1) : std::span(positions),
                                 .width = plan.slot(output_slot(plan.steps[step].op)).width,
                                 .a = of_a[step],
                                 .b = output,
                                 .is_logits = step + 1 == plan.steps.size()});
      if (!diff.equal) found = std::move(diff);
    });
    if (found) return found;
  }
  return std::nullopt;
}

}  // namespace llorch
