// The sampling parameters of a request, in units that host and device share.
#pragma once

#include <cstdint>

namespace llorch {

// What each filter does exactly, and in which order they act, is stated in sampling/sample_token.h.
struct SamplingParams {
  float temperature = 1.0f;         // 0: greedy
  uint32_t top_k = 0;               // 0: off
  float top_p = 1.0f;               // 0..1; 1: off
  float min_p = 0.0f;               // 0..1; 0: off
  float repetition_penalty = 1.0f;  // 0 and 1: off
  uint64_t seed = 42;
};

}  // namespace llorch
