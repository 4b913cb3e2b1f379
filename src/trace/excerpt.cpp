#include "trace/excerpt.h"

#include <map>

namespace llorch {
namespace {

// Takes the weights that an op reads from one plan into another.
class WeightMover {
 public:
  WeightMover(const Plan& from, Plan& to) : from_(from), to_(to) {}

  void operator()(Embed& op) { move(op.table); }
  void operator()(RmsNorm& op) { move(op.weight); }
  void operator()(Linear& op) {
    for (WeightId& id : op.weights) move(id);
    for (WeightId& id : op.biases) move(id);
  }
  void operator()(RopeAppend&) {}
  void operator()(Attention&) {}
  void operator()(GatedAct&) {}
  void operator()(GatherRows&) {}

 private:
  void move(WeightId& id) {
    const auto [it, is_new] = moved_.try_emplace(id, static_cast<WeightId>(to_.weights.size()));
    if (is_new) to_.weights.push_back(from_.weight(id));
    id = it->second;
  }

  const Plan& from_;
  Plan& to_;
  std::map<WeightId, WeightId> moved_;
};

}  // namespace

uint64_t work_of_row(const Plan& plan) {
  uint64_t work = 0;
  for (const Step& step : plan.steps)
    if (const auto* linear = std::get_if<Linear>(&step.op))
      for (const WeightId id : linear->weights)
        work += static_cast<uint64_t>(plan.weight(id).shape[0]) * static_cast<uint64_t>(plan.weight(id).shape[1]);
  return work;
}

Plan first_layers(const Plan& plan, uint32_t n) {
  Plan excerpt = plan;
  if (n >= plan.n_layers) return excerpt;
  excerpt.n_layers = n;
  excerpt.steps.clear();
  excerpt.weights.clear();
  WeightMover mover(plan, excerpt);
  for (const Step& step : plan.steps) {
    if (layer_of(step.name).value_or(0) >= n) continue;
    excerpt.steps.push_back(step);
    std::visit(mover, excerpt.steps.back().op);
  }
  validate(excerpt);
  return excerpt;
}

}  // namespace llorch
