// The first layers of a model as a plan of their own.
#pragma once

#include "plan/plan.h"

namespace llorch {

// Multiply-adds of one row that wants logits: the elements of all matrices that it is multiplied by.
uint64_t work_of_row(const Plan& plan);

// The plan with the first n layers and all that belongs to no layer ("layers.N." begins the steps that do); with all of
// them if n is large enough. Weights that are left out are not in it.
Plan first_layers(const Plan& plan, uint32_t n);

}  // namespace llorch
