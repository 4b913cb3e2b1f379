// Runs each step of a plan by itself, fed what a reference fed it: an early error does not hide later ones.
#pragma once

#include <vector>

#include "backend/backend.h"
#include "trace/bounds.h"
#include "trace/diff_report.h"
#include "trace/record.h"

namespace llorch {

// What the reference b made of a sequence.
struct LocalInputs {
  const Plan& plan;
  const WeightSource& source;
  const SequenceRun& run;
  const CompileOptions& options;            // of both sides; as many KV pages are used as the sequence needs
  const Recording& truth;                   // all steps of the plan on b
  const BoundConditions* bounds = nullptr;  // of a side that is not exact; nullptr: bits are promised
  Numerics numerics = Numerics::kExact;     // of a; b is exact
};

// For each of the steps: a plan of its own, in which the inputs that the step had on b are looked up by Embed in f32
// tables (row i of the table is row i of the input), then the step with its own weights, in the same batches. What it
// gives on a is compared with what it gave on b, bit for bit or within own_bound(). Of an Attention the inputs are
// q|k|v of all positions after b's rotation; they are appended to a's KV pages under a rotation by nothing, so rounding
// to the KV dtype belongs to this step. Nothing is fused. Weights are placed step by step. In plan order; throws what
// a's steps throw.
std::vector<StepDiff> diff_local(Backend& a, Backend& b, const LocalInputs& inputs, const StepSet& steps);

}  // namespace llorch
