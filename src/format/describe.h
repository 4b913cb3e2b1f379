// A checkpoint in words, for `llorch inspect`.
#pragma once

#include <string>

#include "format/checkpoint.h"

namespace llorch {

// Several lines: container, files with sizes, metadata or configuration (long arrays shortened), and a table of the
// tensors (name, dtype, shape, bytes).
std::string describe(const Checkpoint& checkpoint);

}  // namespace llorch
