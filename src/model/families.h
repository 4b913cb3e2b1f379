// The model families: each writes its forward pass as a plan.
#pragma once

#include <functional>

#include "model/config.h"
#include "plan/plan.h"

namespace llorch {

// Dtype and shape of a weight of the checkpoint by its canonical name, and whether it is there.
struct WeightCatalog {
  std::function<const Tensor&(const std::string& name)> at;  // throws Error if absent
  std::function<bool(const std::string& name)> contains;
};

// Llama 2, Llama 3, TinyLlama, SmolLM2 and others of the same form.
Plan llama_plan(const ModelConfig& config, const WeightCatalog& weights, RopeTable rope);

}  // namespace llorch
