// The time of day as text.
#pragma once

#include <string>

namespace llorch {

// The current time in UTC, ISO 8601 with milliseconds: "2026-01-01T12:00:00.000Z".
std::string iso8601_now();

}  // namespace llorch
