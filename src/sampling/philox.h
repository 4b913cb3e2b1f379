// The random numbers of sampling: Philox4x32-10, a counter-based generator. Shared by host and device sources.
//
// J. Salmon, M. Moraes, R. Dror, D. Shaw, "Parallel Random Numbers: As Easy as 1, 2, 3", SC 2011. A number depends on
// (seed, index) alone: there is no state to lose when a sequence is preempted, or to share with another one.
#pragma once

#include <cstdint>

#include "base/host_device.h"

namespace llorch {

struct Philox4x32 {
  uint32_t v[4];
};

// Ten rounds over counter with key.
LLORCH_HD inline Philox4x32 philox4x32_10(Philox4x32 counter, uint32_t key0, uint32_t key1) {
  for (int round = 0; round < 10; ++round) {
    const uint64_t a = uint64_t{0xD2511F53u} * counter.v[0];
    const uint64_t b = uint64_t{0xCD9E8D57u} * counter.v[2];
    counter = {{static_cast<uint32_t>(b >> 32) ^ counter.v[1] ^ key0, static_cast<uint32_t>(b),
                static_cast<uint32_t>(a >> 32) ^ counter.v[3] ^ key1, static_cast<uint32_t>(a)}};
    key0 += 0x9E3779B9u;
    key1 += 0xBB67AE85u;
  }
  return counter;
}

// 64 random bits for the index-th token of a sequence: key = seed (low word first), counter = {index, 0, 0, 0}.
LLORCH_HD inline uint64_t random_bits(uint64_t seed, uint32_t index) {
  const Philox4x32 x =
      philox4x32_10({{index, 0, 0, 0}}, static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32));
  return uint64_t{x.v[1]} << 32 | x.v[0];
}

}  // namespace llorch
