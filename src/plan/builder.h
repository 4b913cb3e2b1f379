// Writes a Plan: names slots and weights, appends steps, validates at the end.
#pragma once

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "plan/plan.h"

namespace llorch {

class PlanBuilder {
 public:
  PlanBuilder(uint32_t vocab, uint32_t n_layers, Heads heads, RopeTable rope);

  // A float32 activation buffer [rows, width].
  SlotId slot(std::string name, uint32_t width);

  // A weight by its canonical name. The same name is the same weight (tied embeddings).
  WeightId weight(const std::string& name, DType dtype, std::vector<int64_t> shape);

  void step(std::string name, Op op);

  // Throws Error as validate() does.
  Plan build() &&;

 private:
  Plan plan_;
  std::map<std::string, WeightId> weights_;
};

}  // namespace llorch
