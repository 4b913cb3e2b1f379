// From rows of logits in device memory to what the engine wants of them; for host code too.
#pragma once

#include "backend/cuda/kernels.h"
#include "sampling/row.h"

namespace llorch::cuda {

// What a row's token is drawn with, as it lies in device memory (sampling_block.h).
struct DeviceRowSampling {
  SamplingParams params;
  uint32_t index = 0;
  uint32_t n_history = 0;
  const int32_t* history = nullptr;  // with a repetition penalty; device memory
  float* penalized = nullptr;        // the same: memory for a row of logits
};

struct SampleArgs {
  const float* logits = nullptr;            // [rows, vocab]
  const DeviceRowSampling* rows = nullptr;  // [rows]
  SampledRow* sampled = nullptr;            // [rows]
  uint32_t vocab = 0;                       // 1 .. kMaxSampledVocab
};

// Each row's fault, hash and token, with the bits of Sampler::sample_row().
void sample(const KernelStream& stream, const SampleArgs& args, int32_t n);

}  // namespace llorch::cuda
