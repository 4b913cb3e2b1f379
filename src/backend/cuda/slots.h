// Activations in device memory: one float32 [rows, width] buffer for each slot, with a guard behind it.
#pragma once

#include <vector>

#include "backend/backend.h"
#include "backend/cuda/memory.h"

namespace llorch::cuda {

class DeviceSlots {
 public:
  // Slots written after GatherRows hold max_logit_rows rows, the others max_rows.
  DeviceSlots(const Plan& plan, const CompileOptions& options);

  float* data(SlotId id) { return memory_.data() + offsets_[static_cast<size_t>(id)]; }
  size_t bytes() const { return memory_.bytes(); }

  // Tests (CompileOptions::poison): NaN in every slot, a pattern behind it.
  void poison(const Stream& stream);
  // Throws BugError naming the slot after whose end something was written. Waits. After poison() only.
  void check_guards(const Stream& stream) const;

 private:
  static constexpr size_t kGuardFloats = 64;
  const Plan& plan_;
  std::vector<size_t> offsets_, sizes_;  // in floats
  DeviceArray<float> memory_;
};

}  // namespace llorch::cuda
