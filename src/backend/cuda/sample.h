// From rows of logits in device memory to what the engine wants of them; for host code too.
#pragma once

#include "backend/cuda/kernels.h"
#include "sampling/row.h"

namespace llorch::cuda {

// What a row's token is drawn with, as it lies in pinned memory (sampling_block.h).
struct DeviceRowSampling {
  SamplingParams params;
  uint32_t index = 0;
  uint32_t n_history = 0;
  const int32_t* history = nullptr;  // with a repetition penalty; device memory
  float* penalized = nullptr;        // the same: memory for a row of logits
};

// Of some of a row's logits.
struct Look {
  unsigned largest = 0;    // of the magnitudes' bits
  unsigned different = 0;  // from the first logit's bits
  uint64_t best = 0;       // the first key of the order
};

inline constexpr uint32_t kHashBlock = 256;    // logits of one block of XXH3, which a warp has
inline constexpr uint32_t kLookWarps = 8;      // of a block of threads of the first kernel
inline constexpr uint32_t kMaxDrawParts = 32;  // of a row in the second one: each lane of a warp has one's sum
inline constexpr uint32_t kDrawSums = 32 * kMaxDrawParts;  // a part's warps have one each
inline constexpr uint32_t kHashLanes = 8;

inline constexpr uint32_t n_hash_blocks(uint32_t vocab) { return (vocab + kHashBlock - 1) / kHashBlock; }
inline constexpr uint32_t n_looks(uint32_t vocab) { return (n_hash_blocks(vocab) + kLookWarps - 1) / kLookWarps; }

// What a row's blocks leave for each other; contents do not matter.
struct SampleScratch {
  uint64_t* hash_sums = nullptr;  // [rows, n_hash_blocks, kHashLanes]
  Look* looks = nullptr;          // [rows, n_looks]
  uint64_t* weights = nullptr;    // [rows, kDrawSums]
  unsigned* arrivals = nullptr;   // [rows]
};

struct SampleArgs {
  const float* logits = nullptr;            // [rows, vocab]
  const uint32_t* half = nullptr;           // 0 or 1, which of what is the host's
  uint32_t half_rows = 0;                   // of each
  const DeviceRowSampling* rows = nullptr;  // [2, half_rows], of the host: read once
  SampledRow* sampled = nullptr;            // [2, half_rows], of the host
  int32_t* tokens = nullptr;                // [rows]: those of sampled, for the next step
  uint32_t vocab = 0;                       // 1 .. kMaxSampledVocab
  SampleScratch scratch;
};

// Each row's fault, hash and token, with the bits of Sampler::sample_row().
void sample(const KernelStream& stream, const SampleArgs& args, int32_t n);

}  // namespace llorch::cuda
