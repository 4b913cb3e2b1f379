// The sampler of the host, compiled twice where the baseline of the machine has no fused multiply-add.
#include "sampling/sampler.h"

#include "base/error.h"
#include "sampling/logits_hash.h"

namespace llorch {
namespace {

struct Arguments {
  std::span<const float> logits;
  const SamplingParams& params;
  std::span<const int32_t> history;
  uint32_t index;
};

inline int32_t sample(const Arguments& a, const SamplingScratch& scratch) {
  return sample_token(a.logits.data(), static_cast<uint32_t>(a.logits.size()), a.params, a.history.data(),
                      static_cast<uint32_t>(a.history.size()), a.index, scratch);
}

#if defined(__x86_64__)
// The same source and the same bits: without this, each FMA of exp_f32 is a call into the C library. Drawing from 128k
// ids took 3.0 ms, and takes 0.7 ms (EPYC, g++ 12). Clang flattens one level only and stays at the former.
__attribute__((flatten, target("avx2,fma"))) int32_t sample_with_fma(const Arguments& a,
                                                                     const SamplingScratch& scratch) {
  return sample(a, scratch);
}
#endif

}  // namespace

Sampler::Sampler(uint32_t vocab)
    : logits_(vocab), seen_((vocab + 31) / 32), ids_(vocab), weights_(vocab), work_(vocab) {
  LLORCH_CHECK(vocab > 0 && vocab <= kMaxSampledVocab, "vocabulary of {} ids", vocab);
}

int32_t Sampler::sample(std::span<const float> logits, const SamplingParams& params, std::span<const int32_t> history,
                        uint32_t index) {
  LLORCH_CHECK(logits.size() == ids_.size(), "{} logits, vocabulary of {}", logits.size(), ids_.size());
  const Arguments arguments{logits, params, history, index};
  const SamplingScratch scratch{logits_.data(), seen_.data(), ids_.data(), weights_.data(), work_.data()};
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return sample_with_fma(arguments, scratch);
#endif
  return llorch::sample(arguments, scratch);
}

SampledRow Sampler::sample_row(std::span<const float> logits, const RowSampling& row) {
  SampledRow result;
  result.fault = check_logits(logits);
  result.hash = hash_of_row(logits);
  if (result.fault != LogitsFault::kNone) return result;
  result.token = sample(logits, row.params, row.history, row.index);
  LLORCH_CHECK(result.token != kNoToken, "sound logits have no largest one");
  return result;
}

}  // namespace llorch
