#include "trace/traced_step.h"

#include "backend/backend.h"

namespace llorch {

TracedStep traced_step(const Plan& plan, size_t step) {
  const StepFailure described = describe_step(plan, step, 0, {});
  return {described.step, described.verb, described.dtype, to_text(plan, plan.steps[step])};
}

}  // namespace llorch
