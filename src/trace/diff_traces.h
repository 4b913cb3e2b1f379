// Two trace files held against each other.
#pragma once

#include <string>
#include <vector>

#include "trace/diff_report.h"
#include "trace/trace_file.h"

namespace llorch {

// Why two traces cannot be compared: a field of their metadata, or a step, that is not the same.
struct Mismatch {
  std::string field;  // "model_hash", "tokens", "step layers.0.attn", ...
  std::string a, b;   // the values, for people
};

// All reasons; none: the traces may be compared. What an outside program does not say is not held against it, nor its
// KV dtype: the bounds allow for that.
std::vector<Mismatch> mismatches(const TraceFile& a, const TraceFile& b);

// Compares the steps that both hold, in plan order: bits if both sides are exact, otherwise the one that is not within
// the bounds of a whole run (bounds.h). Gives their pages back to the system one after another. Throws
// BugError if there are mismatches.
DiffReport diff_traces(const TraceFile& a, const TraceFile& b);

}  // namespace llorch
