// Two programs run the same tokens batch by batch, until a step of one differs from that of the other.
#pragma once

#include <optional>

#include "backend/backend.h"
#include "trace/diff_report.h"
#include "trace/record.h"

namespace llorch {

// The first step that differs in any bit, in the first batch in which one does; nothing if none does. Both programs are
// of the same plan and options. The prompt goes in chunks of 64, so that the outputs of one batch are held and no more.
// Throws as trace_sequence() does.
std::optional<StepDiff> first_difference(Program& a, Program& b, SequenceRun run);

}  // namespace llorch
