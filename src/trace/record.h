// Runs given tokens through a program as one sequence and shows, or keeps, what its steps made of each position.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "backend/backend.h"

namespace llorch {

// One sequence: its first n_prompt tokens are prefilled in chunks, the others are decoded one at a time (given, not
// sampled).
struct SequenceRun {
  std::vector<int32_t> tokens;
  uint32_t n_prompt = 0;        // 1 .. tokens.size()
  uint32_t chunk = 0;           // rows of a prefill batch; 0: as many as the program takes
  std::vector<uint32_t> pages;  // of the sequence; empty: 0, 1, ...

  // Rows that want logits: the last one of the prompt and each decoded one.
  uint32_t n_logit_rows() const { return static_cast<uint32_t>(tokens.size()) - n_prompt + 1; }
};

// Throws Error if a program of this plan and these options cannot run the sequence: no token, a token beyond the
// vocabulary, n_prompt out of range, more positions than the context or the pages hold.
void check_run(const SequenceRun& run, const Plan& plan, const CompileOptions& options);

// The batches of the sequence for a program of these options, in order. Throws as check_run() does.
std::vector<Batch> batches_of(const SequenceRun& run, const Plan& plan, const CompileOptions& options);

// Sees some rows of a step's output: [positions.size(), width]. Both are valid during the call.
using RowVisitor = std::function<void(size_t step, std::span<const uint32_t> positions, std::span<const float> output)>;

// Runs the sequence and shows the outputs of the wanted steps, batch after batch and within one in plan order. After
// GatherRows a step has the rows that want logits. Throws Error as check_run() does, StepError when a step fails.
void trace_sequence(Program& program, const SequenceRun& run, const StepSet& steps, const RowVisitor& visit);

// What trace_sequence() showed.
struct Recording {
  struct Rows {
    std::vector<uint32_t> positions;
    std::vector<float> values;  // [positions.size(), width]
  };
  std::vector<Rows> steps;  // by index in the plan; empty where not wanted
};

Recording record_sequence(Program& program, const SequenceRun& run, const StepSet& steps);

}  // namespace llorch
