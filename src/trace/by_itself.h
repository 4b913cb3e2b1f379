// Every step of a plan by itself, fed the reference's inputs: whether a verb is right on this device, whatever the
// steps around it do.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "trace/doctor.h"
#include "trace/record.h"

namespace llorch {

struct StepsBench {
  Backend& subject;
  Backend& reference;
  const Plan& plan;
  const WeightSource& source;
  const std::vector<int32_t>& tokens;
  const Recording& truth;  // all steps at all positions, logits too
  DType kv_dtype;
};

// In one batch of all tokens; then in batches of 17 rows with decoded rows behind them, then few tokens with decoded
// rows behind those, as far as there are enough: many rows and one, near the beginning and deep. What is found is the
// first step in plan order of the first of these runs that has a wrong one; its remark counts the others by verb.
// Places each weight once a run.
std::optional<Finding> examine_steps(const StepsBench& bench);

// "each of 57 steps fed the reference's inputs: 131 rows, batches of 17 and of 1".
std::string steps_text(const StepsBench& bench);

}  // namespace llorch
