// Where a fault in the logits begins: the sequence is computed once more, with every step shown.
#pragma once

#include <string>

#include "backend/backend.h"
#include "engine/request.h"
#include "engine/sequence.h"
#include "sampling/tripwire.h"

namespace llorch {

// The NUMERIC_FAULT of a sequence that is computed whole and whose last logits have this fault: the first step that
// gives such values, the position and element, and whether the weights that this step reads hold them already; or that
// the second run was sound. Runs on the sequence's own pages, in batches of max_rows, and leaves the same keys and
// values in them: takes the time of a prefill. device: as in StepFailure.
FailEvent trace_fault(Program& program, LogitsFault fault, const Sequence& sequence, const std::string& device);

}  // namespace llorch
