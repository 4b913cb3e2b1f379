// The isolation gate: whatever a program has served before, it answers with the bits of its very first run.
#pragma once

#include <functional>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "engine/engine.h"

namespace llorch {

struct SelfTestOptions {
  EngineOptions engine;                                       // as it will serve
  double limit_ms = std::numeric_limits<double>::infinity();  // do not run if the estimate is above
};

struct SelfTest {
  std::vector<std::string> histories;  // after each of which the logits were those of the first run
  std::string skipped;                 // why it was not run; then histories are empty
  double estimated_ms = 0.0;           // from the first four steps
  double ms = 0.0;                     // that it took
};

// What the test compiles a second program for, on the same weights: three pages, and the rows of its requests.
CompileOptions self_test_program(DType kv_dtype);
using ProgramMaker = std::function<std::unique_ptr<Program>(const CompileOptions&)>;

// Asks a prompt of the program, which must not have run before; then again after a warm-up, beside and after other
// requests, after an error in the middle of a step and after a cancel; at last of a second program, so small that the
// sequence is preempted; and compares the hashes of all logits. Leaves the program free of sequences. Throws Error that
// names the history and the position of the first logits that differ.
SelfTest self_test(Program& program, const ProgramMaker& make_program, const SelfTestOptions& options);

}  // namespace llorch
