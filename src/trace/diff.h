// Compares what two runs of one plan gave, step by step.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "plan/plan.h"
#include "trace/diff_report.h"
#include "trace/record.h"
#include "trace/traced_step.h"

namespace llorch {

// One step's output on both sides, each [positions.size(), width].
struct StepOutputs {
  TracedStep what;
  std::span<const uint32_t> positions;  // ascending
  uint32_t width = 0;
  std::span<const float> a, b;
  bool is_logits = false;
  double bound = 0.0;  // NMSE; 0: bits are promised
};

// Any NaN equals any NaN; otherwise bits are compared, so +0 differs from -0. Where one side has a NaN or an infinity
// that the other has not, max_abs and nmse are infinite. cosine: of the elements that are finite on both sides, 1 if
// these are all zero. ulp_median counts representable floats between the two; those with a NaN on one side are left
// out.
StepDiff diff_step(const StepOutputs& outputs);

// The steps that both recordings hold, in plan order; bits are promised. Throws BugError if the two recordings of a
// step have other positions.
std::vector<StepDiff> diff_recordings(const Plan& plan, const Recording& a, const Recording& b);

// Index of the first step that is not within its bound, or -1.
int first_outside(std::span<const StepDiff> steps);

}  // namespace llorch
