// A plan's identity: two programs may be compared only if their plans are the same.
#pragma once

#include <cstdint>

#include "plan/plan.h"

namespace llorch {

// XXH3 over all that decides a result: steps, shapes, dtypes, constants and the rotation of the first positions. Not
// the context: the same model with more or less room has the same plan.
uint64_t plan_hash(const Plan& plan);

}  // namespace llorch
