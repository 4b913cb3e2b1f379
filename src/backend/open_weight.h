// How every backend takes a weight from its source: opened, and held against what the plan says of it.
#pragma once

#include "backend/backend.h"

namespace llorch {

// Bytes of a weight in the file's layout.
size_t file_bytes(const Weight& weight);

// source.open(weight); the caller closes it. Throws Error with name, expected and got if the tensor has another dtype,
// shape or size.
Tensor open_weight(const WeightSource& source, const Weight& weight);

}  // namespace llorch
