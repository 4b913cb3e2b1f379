// A backend with one planted bug, made of a right one: it changes the plan, the weights or each batch on their way.
#pragma once

#include <functional>
#include <memory>
#include <utility>

#include "backend/backend.h"

namespace llorch::test {

struct Fault {
  std::function<void(Plan&)> plan = [](Plan&) {};        // of all programs
  std::function<void(Plan&)> fused_plan = [](Plan&) {};  // of the runs that do not show fused_step
  std::string fused_step = "";
  std::function<void(Batch&, const KvShape&)> batch = [](Batch&, const KvShape&) {};
  std::function<void(const Weight&, std::vector<std::byte>&)> weight = [](const Weight&, std::vector<std::byte>&) {};
};

class FaultyProgram final : public Program {
 public:
  FaultyProgram(std::unique_ptr<Program> fused, std::unique_ptr<Program> unfused, const Fault& fault)
      : fused_(std::move(fused)), unfused_(std::move(unfused)), fault_(fault) {}

  std::span<const float> run(const Batch& batch) override { return trace(batch, StepSet(plan().steps.size()), {}); }
  std::span<const float> trace(const Batch& batch, const StepSet& steps, const StepVisitor& visit) override {
    const int step = plan().find_step(fault_.fused_step);
    const bool is_fused = step >= 0 && !steps[static_cast<size_t>(step)];
    const Batch changed = change(batch);
    (is_fused ? unfused_ : fused_)->run(changed);  // so that both hold all keys and values
    return (is_fused ? fused_ : unfused_)->trace(changed, steps, visit);
  }
  size_t bytes() const override { return unfused_->bytes(); }
  const PlacedWeights& weights() const override { return unfused_->weights(); }
  const Plan& plan() const override { return unfused_->plan(); }
  const CompileOptions& options() const override { return unfused_->options(); }

 private:
  Batch change(Batch batch) const {
    fault_.batch(batch, options().kv);
    return batch;
  }

  std::unique_ptr<Program> fused_, unfused_;
  const Fault& fault_;
};

class FaultyBackend final : public Backend {
 public:
  FaultyBackend(std::unique_ptr<Backend> right, Fault fault) : right_(std::move(right)), fault_(std::move(fault)) {}

  BackendInfo info() const override { return {"faulty", right_->info().device}; }
  Roof measure_roof() override { return {}; }
  std::vector<MemoryNeed> memory_needs(const Plan& plan, const CompileOptions& options) const override {
    return right_->memory_needs(plan, options);
  }
  std::shared_ptr<const PlacedWeights> place(const Plan& plan, const WeightSource& source) override {
    std::vector<std::byte> bytes;
    return right_->place(plan, {.open =
                                    [&](const Weight& weight) {
                                      Tensor tensor = source.open(weight);
                                      bytes.assign(tensor.bytes.begin(), tensor.bytes.end());
                                      fault_.weight(weight, bytes);
                                      tensor.bytes = bytes;
                                      return tensor;
                                    },
                                .close = [](const Tensor&) {}});
  }
  std::unique_ptr<Program> compile(const Plan& plan, std::shared_ptr<const PlacedWeights> weights,
                                   const CompileOptions& options) override {
    Plan unfused = plan;
    fault_.plan(unfused);
    Plan fused = unfused;
    fault_.fused_plan(fused);
    return std::make_unique<FaultyProgram>(right_->compile(fused, weights, options),
                                           right_->compile(unfused, weights, options), fault_);
  }

 private:
  const std::unique_ptr<Backend> right_;
  const Fault fault_;
};

}  // namespace llorch::test
