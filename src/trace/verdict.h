// What the pattern of failed checks says, in one sentence.
#pragma once

#include "trace/doctor.h"

namespace llorch {

// What a finding is, for a check's sentence: step, positions, the first element with its bits.
std::string finding_text(const Finding& finding);

// Fills step, position and verdict from the checks.
void conclude(Diagnosis& diagnosis);

}  // namespace llorch
