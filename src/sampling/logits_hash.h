// A fingerprint of the logits that a sequence was sampled from: equal histories have equal hashes, bit for bit.
//
// Each row has a hash of its own, which whoever holds the row can make (backend/cuda/logits_hash.h does so on the
// device); a sequence chains those of its rows.
#pragma once

#include <xxhash.h>

#include <cstdint>
#include <span>

namespace llorch {

// XXH3-64, seed 0, of the row's bytes. logits [vocab]
inline uint64_t hash_of_row(std::span<const float> logits) { return XXH3_64bits(logits.data(), logits.size_bytes()); }

// Of a sequence's rows so far, in the order in which they were sampled: 0, and after each row XXH3-64 of the 16 bytes
// of the hash before and the row's, low bytes first.
class LogitsHash {
 public:
  void add(uint64_t row_hash) {
    const uint64_t both[2] = {value_, row_hash};
    value_ = XXH3_64bits(both, sizeof both);
  }

  uint64_t value() const { return value_; }

 private:
  uint64_t value_ = 0;
};

}  // namespace llorch
