// A fingerprint of the logits that a sequence was sampled from: equal histories have equal hashes, bit for bit.
#pragma once

#include <xxhash.h>

#include <cstdint>
#include <memory>
#include <new>
#include <span>

namespace llorch {

// XXH3-64 over the bytes of all rows, in the order in which they were sampled.
class LogitsHash {
 public:
  LogitsHash() : state_(XXH3_createState()) {
    if (!state_) throw std::bad_alloc();
    XXH3_64bits_reset(state_.get());
  }

  // logits [vocab] of the next sampled row.
  void add(std::span<const float> logits) { XXH3_64bits_update(state_.get(), logits.data(), logits.size_bytes()); }

  // Of the rows so far.
  uint64_t value() const { return XXH3_64bits_digest(state_.get()); }

 private:
  struct Free {
    void operator()(XXH3_state_t* state) const { XXH3_freeState(state); }
  };
  std::unique_ptr<XXH3_state_t, Free> state_;
};

}  // namespace llorch
