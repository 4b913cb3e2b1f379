#include "plan/builder.h"

namespace llorch {

PlanBuilder::PlanBuilder(uint32_t vocab, uint32_t n_layers, Heads heads, RopeTable rope) {
  plan_.vocab = vocab;
  plan_.n_layers = n_layers;
  plan_.heads = heads;
  plan_.rope = std::move(rope);
}

SlotId PlanBuilder::slot(std::string name, uint32_t width) {
  plan_.slots.push_back({std::move(name), width});
  return static_cast<SlotId>(plan_.slots.size() - 1);
}

WeightId PlanBuilder::weight(const std::string& name, DType dtype, std::vector<int64_t> shape) {
  const auto [it, is_new] = weights_.try_emplace(name, static_cast<WeightId>(plan_.weights.size()));
  if (is_new) plan_.weights.push_back({name, dtype, std::move(shape)});
  return it->second;
}

void PlanBuilder::step(std::string name, Op op) { plan_.steps.push_back({std::move(name), std::move(op)}); }

Plan PlanBuilder::build() && {
  validate(plan_);
  return std::move(plan_);
}

}  // namespace llorch
