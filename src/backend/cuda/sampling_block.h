// How the rows of a batch are sampled, beside the batch block, and the results: in pinned memory at places that stay,
// so that a recorded graph finds them. There are two halves of them, for two steps in flight. The kernels read and
// write it themselves: a row is read while the step's last product is at work, and two copies fewer stand in a step's
// way.
#pragma once

#include "backend/backend.h"
#include "backend/cuda/memory.h"
#include "backend/cuda/sample.h"

namespace llorch::cuda {

class SamplingBlock {
 public:
  SamplingBlock(const Plan& plan, const CompileOptions& options);

  // Of the device, and of pinned memory.
  static size_t bytes(const Plan& plan, const CompileOptions& options);
  static size_t pinned_bytes(const Plan& plan, const CompileOptions& options);

  // Throws BugError for ids beyond the vocabulary, and for histories that are longer than a context. The copies that
  // were queued before must be over if there are histories to copy. half: 0 or 1, of a step that has ended.
  void fill(std::span<const RowSampling> rows, uint32_t half);
  void send(const Stream& stream);

  // half: of the device, read by each step.
  SampleArgs args(const float* logits, const uint32_t* half);
  // Of the rows that fill() was given for that half; there when the step has ended.
  std::span<const SampledRow> results(uint32_t half) const {
    return {sampled_.data() + half * half_rows_, n_rows_[half]};
  }
  // The tokens of the step that has ended last, on the device.
  const int32_t* last_tokens() const { return tokens_.data(); }

 private:
  const uint32_t vocab_, context_, half_rows_;
  PinnedArray<DeviceRowSampling> rows_;  // [2, half rows]
  PinnedArray<int32_t> host_histories_;  // [max logit rows, context]; used by rows with a repetition penalty, in turn
  DeviceArray<int32_t> histories_;
  DeviceArray<float> penalized_;     // [max logit rows, vocab]
  PinnedArray<SampledRow> sampled_;  // [2, half rows]
  DeviceArray<int32_t> tokens_;      // [half rows]
  DeviceArray<uint64_t> hash_sums_;  // SampleScratch
  DeviceArray<Look> looks_;
  DeviceArray<uint64_t> weights_;
  DeviceArray<unsigned> arrivals_;
  size_t n_rows_[2] = {0, 0}, n_history_ = 0;
};

}  // namespace llorch::cuda
