// What a trace says of a step that it holds, for those who read it without the model.
#pragma once

#include <string>

#include "plan/plan.h"

namespace llorch {

struct TracedStep {
  std::string name, verb;
  std::string dtype;  // of the weights that it reads; "f32" if it reads none
  std::string text;   // its line of the plan: slots, weights, types, shapes
};

TracedStep traced_step(const Plan& plan, size_t step);

}  // namespace llorch
