// The specification of every verb as a backend: scalar, float32, one thread, no fusion.
#pragma once

#include <memory>

#include "backend/backend.h"

namespace llorch {

std::unique_ptr<Backend> make_reference_backend();

}  // namespace llorch
