// Holds the rows of a batch against what the reference made of the same positions, and finds the step where they part.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "trace/doctor.h"
#include "trace/record.h"

namespace llorch {

// Rows of a batch that are consecutive positions of the watched sequence.
struct WatchedRows {
  uint32_t first_row = 0;
  uint32_t n_rows = 0;
  uint32_t first_position = 0;  // as it should be, whatever the batch says
};

class Examiner {
 public:
  // truth: all steps of the plan at all positions of the watched sequence. Both must outlive this.
  Examiner(const Plan& plan, const Recording& truth);

  // Runs the batch with the outputs of all steps shown.
  std::optional<Finding> trace(Program& program, const Batch& batch, const WatchedRows& rows) const;

  // Runs the batch as an engine does and compares logits; where they differ, the steps are shown to find out why.
  std::optional<Finding> run(Program& program, const Batch& batch, const WatchedRows& rows) const;

  // Runs one of the batches after the one with the finding, and adds the positions at which the same step differs.
  void extend(Program& program, const Batch& batch, const WatchedRows& rows, Finding& finding) const;

  // run(), for one who needs the logits too: they are the span that came of running the batch first.
  std::optional<Finding> explain(Program& program, const Batch& batch, const WatchedRows& rows,
                                 std::span<const float> logits) const;

 private:
  bool logits_differ(std::span<const float> logits, const Batch& batch, const WatchedRows& rows) const;
  std::optional<Finding> first_difference(Program& program, const Batch& batch, const WatchedRows& rows,
                                          const StepSet& shown) const;
  // Always names the step and counts its rows; no positions: they are equal.
  Finding compare(size_t step, std::span<const float> output, const Batch& batch, const WatchedRows& rows) const;
  std::optional<Finding> find_fusion(Program& program, const Batch& batch, const WatchedRows& rows) const;

  const Plan& plan_;
  const Recording& truth_;
  std::vector<bool> gathered_;  // [steps]
};

bool same_bits(float a, float b);  // any NaN equals any NaN

// The first step that reads a weight.
const Step& first_reader(const Plan& plan, WeightId id);

// A finding of the exception that is being handled: the step, if it names one.
Finding finding_of_exception();

// Calls the function; what it throws becomes a finding.
std::optional<Finding> find_in(const std::function<std::optional<Finding>()>& examine);

// The part of a step's output that elements first..last are, for people.
std::string elements_text(const Plan& plan, const Step& step, uint32_t first, uint32_t last);

}  // namespace llorch
