// Activations in device memory: one float32 [rows, width] buffer for each slot, with a guard behind it.
#pragma once

#include <vector>

#include "backend/backend.h"
#include "backend/cuda/memory.h"
#include "backend/slots.h"

namespace llorch::cuda {

class DeviceSlots {
 public:
  DeviceSlots(const Plan& plan, const CompileOptions& options);

  float* data(SlotId id) { return memory_.data() + layout_.offsets[static_cast<size_t>(id)]; }
  size_t bytes() const { return memory_.bytes(); }

  // Tests (CompileOptions::poison): NaN in every slot, a pattern behind it.
  void poison(const Stream& stream);
  // Throws BugError naming the slot after whose end something was written. Waits. After poison() only.
  void check_guards(const Stream& stream) const;

 private:
  const Plan& plan_;
  const SlotLayout layout_;
  DeviceArray<float> memory_;
};

}  // namespace llorch::cuda
