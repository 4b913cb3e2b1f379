// Activation memory of a program, shared by the host backends: one float32 [rows, width] buffer for each slot.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "backend/backend.h"

namespace llorch {

// Where each slot lies in one piece of memory, in floats, with a guard behind it; all are 256-byte aligned. Slots
// written after GatherRows hold max_logit_rows rows, the others max_rows.
struct SlotLayout {
  static constexpr size_t kGuardFloats = 64;

  SlotLayout(const Plan& plan, const CompileOptions& options);
  size_t bytes() const { return n_floats * sizeof(float); }

  std::vector<size_t> offsets, sizes;  // [slots]
  size_t n_floats = 0;                 // never 0
};

class Slots {
 public:
  // Memory that no step touches is never resident (slots swallowed by fusion cost address space only).
  Slots(const Plan& plan, const CompileOptions& options);

  // [rows, width], 64-byte aligned.
  float* data(SlotId id) { return memory_.get() + layout_.offsets[static_cast<size_t>(id)]; }
  const float* data(SlotId id) const { return memory_.get() + layout_.offsets[static_cast<size_t>(id)]; }

  size_t bytes() const { return layout_.bytes(); }

  // Tests (CompileOptions::poison): fills every slot with NaN and the gaps between slots with a pattern.
  void poison();

  // Throws BugError naming the slot after whose end something was written. After poison() only.
  void check_guards() const;

 private:
  struct Free {
    size_t bytes;
    void operator()(float* memory) const;
  };

  const Plan& plan_;
  const SlotLayout layout_;
  std::unique_ptr<float, Free> memory_;
};

// True for each step of the plan that sees only the rows that want logits.
std::vector<bool> gathered_steps(const Plan& plan);

// True if a step from `from` on reads what is in the slot now: if not, the step that wrote it may be fused away.
bool reads_later(const Plan& plan, size_t from, SlotId slot);

}  // namespace llorch
