// Names for things that had none: correlation ids and worker ids.
#pragma once

#include <string>
#include <string_view>

namespace llorch {

// A random UUID (version 4).
std::string random_uuid();

// The client's X-Correlation-Id if it is 1 to 128 printable ASCII characters without spaces, else a new one.
std::string correlation_id(std::string_view header);

}  // namespace llorch
