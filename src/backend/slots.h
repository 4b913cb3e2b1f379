// Activation memory of a program, shared by the host backends: one float32 [rows, width] buffer for each slot.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "backend/backend.h"

namespace llorch {

class Slots {
 public:
  // Slots written after GatherRows hold max_logit_rows rows, the others max_rows. Memory that no step touches is never
  // resident (slots swallowed by fusion cost address space only).
  Slots(const Plan& plan, const CompileOptions& options);

  // [rows, width], 64-byte aligned.
  float* data(SlotId id) { return memory_.get() + offsets_[static_cast<size_t>(id)]; }
  const float* data(SlotId id) const { return memory_.get() + offsets_[static_cast<size_t>(id)]; }

  size_t bytes() const { return n_floats_ * sizeof(float); }

  // Tests (CompileOptions::poison): fills every slot with NaN and the gaps between slots with a pattern.
  void poison();

  // Throws BugError naming the slot after whose end something was written. After poison() only.
  void check_guards() const;

 private:
  struct Free {
    size_t bytes;
    void operator()(float* memory) const;
  };
  static constexpr size_t kGuardFloats = 64;

  const Plan& plan_;
  std::vector<size_t> offsets_;  // in floats; a guard follows each slot
  std::vector<size_t> sizes_;    // in floats
  size_t n_floats_ = 0;
  std::unique_ptr<float, Free> memory_;
};

// True for each step of the plan that sees only the rows that want logits.
std::vector<bool> gathered_steps(const Plan& plan);

// True if a step from `from` on reads what is in the slot now: if not, the step that wrote it may be fused away.
bool reads_later(const Plan& plan, size_t from, SlotId slot);

}  // namespace llorch
