// A diagnosis as JSON (docs/debugging.md).
#pragma once

#include <nlohmann/json.hpp>

#include "trace/doctor.h"

namespace llorch {

// Values that JSON does not have (NaN, infinities) are null; their bits stand beside them.
nlohmann::json to_json(const Diagnosis& diagnosis);

}  // namespace llorch
