// The sampler of the host: sampling/sample_token.h with memory of its own.
#pragma once

#include <span>
#include <vector>

#include "sampling/sample_token.h"

namespace llorch {

// Keeps nothing between calls but memory: 20 bytes for each id of the vocabulary.
class Sampler {
 public:
  explicit Sampler(uint32_t vocab);

  // The check, the hash and the token of a row, logits [vocab].
  SampledRow sample_row(std::span<const float> logits, const RowSampling& row);

  // The index-th generated token, after the history (prompt and generated tokens); kNoToken if logits [vocab] hold NaN
  // or have no finite maximum.
  int32_t sample(std::span<const float> logits, const SamplingParams& params, std::span<const int32_t> history,
                 uint32_t index);

 private:
  std::vector<float> logits_;
  std::vector<uint32_t> seen_, ids_;
  std::vector<uint64_t> weights_;
  std::vector<uint32_t> work_;
};

}  // namespace llorch
