#include "backend/cuda/sampling_block.h"

#include <algorithm>

namespace llorch::cuda {
SamplingBlock::SamplingBlock(const Plan& plan, const CompileOptions& options)
    : vocab_(plan.vocab),
      context_(plan.context()),
      host_rows_(kActivationMemory, options.max_logit_rows),
      rows_(kActivationMemory, options.max_logit_rows),
      host_histories_(kActivationMemory, size_t{options.max_logit_rows} * context_),
      histories_(kActivationMemory, host_histories_.size()),
      penalized_(kActivationMemory, size_t{options.max_logit_rows} * vocab_),
      sampled_(kActivationMemory, options.max_logit_rows),
      host_sampled_(kActivationMemory, options.max_logit_rows) {
  if (vocab_ > kMaxSampledVocab)
    fail("vocabulary of {} ids: the cuda backend takes up to {}", vocab_, kMaxSampledVocab);
}

void SamplingBlock::fill(std::span<const RowSampling> rows) {
  LLORCH_CHECK(rows.size() <= host_rows_.size(), "{} rows to sample, at most {}", rows.size(), host_rows_.size());
  n_rows_ = rows.size();
  n_history_ = 0;
  for (size_t i = 0; i < rows.size(); ++i) {
    DeviceRowSampling& row = host_rows_.data()[i];
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
  if (n_rows_ > 0) stream.to_device(rows_.data(), host_rows_.data(), n_rows_);
  if (n_history_ > 0) stream.to_device(histories_.data(), host_histories_.data(), n_history_);
}

SampleArgs SamplingBlock::args(const float* logits) { return {logits, rows_.data(), sampled_.data(), vocab_}; }

void SamplingBlock::ask_for_results(const Stream& stream) {
  stream.to_host(host_sampled_.data(), sampled_.data(), n_rows_);
}

size_t SamplingBlock::bytes(const Plan& plan, const CompileOptions& options) {
  return options.max_logit_rows * (sizeof(DeviceRowSampling) + sizeof(SampledRow) + plan.context() * sizeof(int32_t) +
                                   plan.vocab * sizeof(float));
}

size_t SamplingBlock::pinned_bytes(const Plan& plan, const CompileOptions& options) {
  return options.max_logit_rows * (sizeof(DeviceRowSampling) + sizeof(SampledRow) + plan.context() * sizeof(int32_t));
}

}  // namespace llorch::cuda
