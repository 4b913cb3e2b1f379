#include "backend/cuda/sampling_block.h"

#include <algorithm>

namespace llorch::cuda {
namespace {

size_t hash_sums_of_row(uint32_t vocab) { return size_t{n_hash_blocks(vocab)} * kHashLanes; }

}  // namespace

SamplingBlock::SamplingBlock(const Plan& plan, const CompileOptions& options)
    : vocab_(plan.vocab),
      context_(plan.context()),
      half_rows_(options.max_logit_rows),
      rows_(kActivationMemory, size_t{2} * half_rows_),
      host_histories_(kActivationMemory, size_t{options.max_logit_rows} * context_),
      histories_(kActivationMemory, host_histories_.size()),
      penalized_(kActivationMemory, size_t{options.max_logit_rows} * vocab_),
      sampled_(kActivationMemory, size_t{2} * half_rows_),
      tokens_(kActivationMemory, half_rows_),
      hash_sums_(kActivationMemory, options.max_logit_rows * hash_sums_of_row(vocab_)),
      looks_(kActivationMemory, size_t{options.max_logit_rows} * n_looks(vocab_)),
      weights_(kActivationMemory, size_t{options.max_logit_rows} * kDrawSums),
      arrivals_(kActivationMemory, options.max_logit_rows) {
  if (vocab_ > kMaxSampledVocab)
    fail("vocabulary of {} ids: the cuda backend takes up to {}", vocab_, kMaxSampledVocab);
}

void SamplingBlock::fill(std::span<const RowSampling> rows, uint32_t half) {
  LLORCH_CHECK(rows.size() <= half_rows_, "{} rows to sample, at most {}", rows.size(), half_rows_);
  n_rows_[half] = rows.size();
  n_history_ = 0;
  for (size_t i = 0; i < rows.size(); ++i) {
    DeviceRowSampling& row = rows_.data()[half * half_rows_ + i];
    row = {};
    row.params = rows[i].params;
    row.index = rows[i].index;
    if (!sampling_detail::penalizes(row.params)) continue;
    const std::span<const int32_t> history = rows[i].history;
    LLORCH_CHECK(history.size() <= context_, "a history of {} ids, the context is {}", history.size(), context_);
    for (const int32_t id : history)
      LLORCH_CHECK(id >= 0 && static_cast<uint32_t>(id) < vocab_, "token {} of {}", id, vocab_);
    row.n_history = static_cast<uint32_t>(history.size());
    row.history = histories_.data() + n_history_;
    row.penalized = penalized_.data() + i * vocab_;
    std::copy(history.begin(), history.end(), host_histories_.data() + n_history_);
    n_history_ += history.size();
  }
}

void SamplingBlock::send(const Stream& stream) {
  if (n_history_ > 0) stream.to_device(histories_.data(), host_histories_.data(), n_history_);
}

SampleArgs SamplingBlock::args(const float* logits, const uint32_t* half) {
  return {logits,          half,
          half_rows_,      rows_.data(),
          sampled_.data(), tokens_.data(),
          vocab_,          {hash_sums_.data(), looks_.data(), weights_.data(), arrivals_.data()}};
}

size_t SamplingBlock::bytes(const Plan& plan, const CompileOptions& options) {
  const size_t scratch = (hash_sums_of_row(plan.vocab) + kDrawSums) * sizeof(uint64_t) +
                         n_looks(plan.vocab) * sizeof(Look) + sizeof(unsigned) + sizeof(int32_t);
  return options.max_logit_rows * (plan.context() * sizeof(int32_t) + plan.vocab * sizeof(float) + scratch);
}

size_t SamplingBlock::pinned_bytes(const Plan& plan, const CompileOptions& options) {
  return options.max_logit_rows *
         (2 * (sizeof(DeviceRowSampling) + sizeof(SampledRow)) + plan.context() * sizeof(int32_t));
}

}  // namespace llorch::cuda
