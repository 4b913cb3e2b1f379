// How the rows of a batch are sampled, beside the batch block, and the results: in pinned memory at places that stay,
// so that a recorded graph finds them. The kernels read and write it themselves: a row is read while the step's last
// product is at work, and two copies fewer stand in a step's way.
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
  // were queued before must be over.
  void fill(std::span<const RowSampling> rows);
  void send(const Stream& stream);

  SampleArgs args(const float* logits);
  // Of the rows that fill() was given; there when the stream has come to its end.
  std::span<const SampledRow> results() const { return {sampled_.data(), n_rows_}; }

 private:
  const uint32_t vocab_, context_;
  PinnedArray<DeviceRowSampling> rows_;
  PinnedArray<int32_t> host_histories_;  // [max logit rows, context]; used by rows with a repetition penalty, in turn
  DeviceArray<int32_t> histories_;
  DeviceArray<float> penalized_;  // [max logit rows, vocab]
  PinnedArray<SampledRow> sampled_;
  DeviceArray<uint64_t> hash_sums_;  // SampleScratch
  DeviceArray<Look> looks_;
  DeviceArray<uint64_t> weights_;
  DeviceArray<unsigned> arrivals_;
  size_t n_rows_ = 0, n_history_ = 0;
};

}  // namespace llorch::cuda
