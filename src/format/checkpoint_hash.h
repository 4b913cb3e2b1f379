// A model's identity: two runs may be compared only if their weights are the same.
#pragma once

#include <cstdint>

#include "format/checkpoint.h"

namespace llorch {

// XXH3 over all tensors' names, types, shapes and bytes, in order of their names, so that it does not depend on shards
// and padding. Of tensors whose type llorch does not read all but the bytes. Reads the whole model once, piece by
// piece, and gives the pages back.
uint64_t hash_tensors(const Checkpoint& checkpoint);

}  // namespace llorch
