// A model's identity: two runs may be compared only if their weights are the same.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>

#include "format/checkpoint.h"

namespace llorch {

// XXH3 over all tensors' names, types, shapes and bytes, in order of their names, so that it does not depend on shards
// and padding. Of tensors whose type llorch does not read all but the bytes. Reads the whole model once, piece by
// piece, and gives the pages back.
uint64_t hash_tensors(const Checkpoint& checkpoint);

struct TensorHashes {
  uint64_t all = 0;                      // hash_tensors()
  std::map<std::string, uint64_t> each;  // XXH3 over type, shape and bytes of one tensor, by name
};

// Both, from one reading. go_on is asked every 16 MB; nothing if it says no.
std::optional<TensorHashes> hash_each_tensor(const Checkpoint& checkpoint, const std::function<bool()>& go_on);

}  // namespace llorch
