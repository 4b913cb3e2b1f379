// The faults of a step that tests can inject (base/fault.h). Nothing is left of this in other builds.
#pragma once

#include <chrono>
#include <new>
#include <thread>

#include "backend/backend.h"
#include "base/fault.h"

namespace llorch {

// For backends, where a step begins and its exceptions become StepErrors.
inline void inject_faults(const Step& step) {
  if (fault("hang", step.name)) std::this_thread::sleep_for(std::chrono::milliseconds(1500));
  if (fault("device", step.name))
    throw CodedError(ErrorCode::kDeviceLost, "the device does not answer any more (injected)");
  if (fault("memory.step", step.name)) throw std::bad_alloc();
  if (!fault("launch", step.name)) return;
  try {
    fail("error 999 of the driver (injected)");
  } catch (const Error&) {
    std::throw_with_nested(Error("the kernel could not be launched"));
  }
}

}  // namespace llorch
