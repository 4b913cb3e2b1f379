// The scalar reference under another name: a base for backends of tests that change one thing.
#pragma once

#include "backend/reference/reference_backend.h"

namespace llorch {

class ForwardingBackend : public Backend {
 public:
  BackendInfo info() const override { return inner_->info(); }
  Roof measure_roof() override { return inner_->measure_roof(); }
  std::vector<MemoryNeed> memory_needs(const Plan& plan, const CompileOptions& options) const override {
    return inner_->memory_needs(plan, options);
  }
  std::shared_ptr<const PlacedWeights> place(const Plan& plan, const WeightSource& source) override {
    return inner_->place(plan, source);
  }
  std::unique_ptr<Program> compile(const Plan& plan, std::shared_ptr<const PlacedWeights> weights,
                                   const CompileOptions& options) override {
    return inner_->compile(plan, std::move(weights), options);
  }

 private:
  const std::unique_ptr<Backend> inner_ = make_reference_backend();
};

}  // namespace llorch
