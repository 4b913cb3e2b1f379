// From a checkpoint to a plan.
#pragma once

#include "format/checkpoint.h"
#include "model/config.h"
#include "plan/plan.h"

namespace llorch {

struct Model {
  ModelConfig config;
  Plan plan;
};

// Reads the configuration and lets the model's family write its plan for sequences of up to `context` positions (0: as
// many as the model was made for). Throws Error naming file, tensor or key, expected and
// got; of weights that do not fit the configuration in its cause (with_causes()).
Model load_model(const Checkpoint& checkpoint, uint32_t context = 0);

}  // namespace llorch
