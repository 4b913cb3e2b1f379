// A toy model for tests: its logits are a hash of the sequence's whole history, as it stands in the KV pages.
#pragma once

#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>
#include <set>
#include <span>
#include <vector>

#include "backend/backend.h"
#include "engine/request.h"
#include "sampling/sampler.h"

namespace llorch {

inline uint64_t mix(uint64_t x) {  // the finalizer of splitmix64
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

// Its state after a token at a position.
inline uint64_t fake_state(uint64_t state, int32_t token, uint32_t position) {
  return mix(state * 31 + mix(static_cast<uint32_t>(token) + (uint64_t{position} << 32)) + 1);
}

inline float fake_logit(uint64_t state, uint32_t id) {
  return static_cast<float>(mix(state + id) >> 40) * (12.0f / 16777216.0f) - 6.0f;
}

struct FakeOptions {
  uint32_t vocab = 50, context = 256;
  uint32_t n_pages = 64, page_size = 16;
  uint32_t max_rows = 512, max_logit_rows = 64;
  uint32_t max_in_flight = 2;
  int32_t nan_token = -1;                        // histories that end with it have NaN among their logits
  std::function<void(const Batch&)> before_run;  // may sleep or throw; engine thread
  std::function<void(const Batch&, std::span<float> logits)> after_run;  // may spoil them; not called by trace()
};

// It stores tokens and positions in pages and computes from what it reads there, so that a wrong page table, a stale
// page or a wrong position changes the result.
class FakeProgram : public Program {
 public:
  explicit FakeProgram(FakeOptions options) : fake_(std::move(options)), cells_(fake_.n_pages * fake_.page_size) {
    plan_.vocab = fake_.vocab;
    plan_.slots = {{"x", kWidth}, {"last", kWidth}, {"logits", fake_.vocab}};
    plan_.weights = {{"table", DType::kF32, {fake_.vocab, kWidth}}, {"head", DType::kF16, {fake_.vocab, kWidth}}};
    plan_.steps = {{"embed", Embed{SlotId{0}, WeightId{0}}},
                   {"layers.0.act", GatedAct{SlotId{0}, SlotId{0}}},
                   {"gather", GatherRows{SlotId{0}, SlotId{1}}},
                   {"logits", Linear{SlotId{1}, SlotId{2}, {WeightId{1}}, {}}}};
    plan_.rope.context = fake_.context;
    options_.kv.n_pages = fake_.n_pages;
    options_.kv.page_size = fake_.page_size;
    options_.max_rows = fake_.max_rows;
    options_.max_logit_rows = fake_.max_logit_rows;
  }

  std::span<const float> run(const Batch& batch) override {
    compute(batch);
    if (fake_.after_run) fake_.after_run(batch, logits_);
    return logits_;
  }

  // The steps of a row show its state; "layers.0.act" and what follows show NaN where the logits have it.
  std::span<const float> trace(const Batch& batch, const StepSet& steps, const StepVisitor& visit) override {
    compute(batch);
    for (size_t step = 0; step < plan_.steps.size(); ++step) {
      const std::vector<float> output = step == 3 ? logits_ : rows_shown(batch, step);
      if (steps[step] && !output.empty()) visit(step, output);
    }
    return logits_;
  }

  uint32_t max_in_flight() const override { return fake_.max_in_flight; }
  size_t bytes() const override { return cells_.size() * sizeof(Cell); }
  const Plan& plan() const override { return plan_; }
  const CompileOptions& options() const override { return options_; }
  const PlacedWeights& weights() const override { return weights_; }

 private:
  struct Weights final : PlacedWeights {
    size_t bytes() const override { return 0; }
    void read_row(WeightId, int64_t row, float* out) const override {
      for (uint32_t i = 0; i < kWidth; ++i) out[i] = 0.5f + static_cast<float>(row + i);
    }
  };
  struct Cell {
    int32_t token = -1;
    uint32_t position = 0;
  };

  static constexpr uint32_t kWidth = 4;

  std::vector<float> rows_shown(const Batch& batch, size_t step) const {
    std::vector<uint32_t> rows = batch.logit_rows;
    if (step < 2) {
      rows.resize(batch.rows());
      std::iota(rows.begin(), rows.end(), 0u);
    }
    std::vector<float> output;
    for (const uint32_t row : rows) {
      for (uint32_t i = 0; i < kWidth; ++i) output.push_back(fake_logit(states_[row], i + static_cast<uint32_t>(step)));
      if (step > 0 && batch.tokens[row] == fake_.nan_token) output[output.size() - 2] = NAN;
    }
    return output;
  }

  void compute(const Batch& batch) {
    check_batch(batch, plan_, options_);
    const std::set<uint32_t> distinct(batch.pages.begin(), batch.pages.end());
    LLORCH_CHECK(distinct.size() == batch.pages.size(), "sequences share a page");
    if (fake_.before_run) fake_.before_run(batch);
    logits_.clear();
    states_.assign(batch.rows(), 0);
    size_t next_logit_row = 0;
    for (const Batch::Sequence& s : batch.sequences) {
      const auto cell = [&](uint32_t position) -> Cell& {
        return cells_[batch.pages[s.first_page + position / fake_.page_size] * fake_.page_size +
                      position % fake_.page_size];
      };
      for (uint32_t i = 0; i < s.n_rows; ++i)
        cell(s.first_position + i) = {batch.tokens[s.first_row + i], s.first_position + i};
      uint64_t state = 0;
      for (uint32_t p = 0; p < s.first_position + s.n_rows; ++p) {
        state = fake_state(state, cell(p).token, cell(p).position);
        if (p < s.first_position) continue;
        states_[s.first_row + p - s.first_position] = state;
        if (next_logit_row == batch.logit_rows.size()) continue;
        if (batch.logit_rows[next_logit_row] != s.first_row + p - s.first_position) continue;
        ++next_logit_row;
        for (uint32_t id = 0; id < fake_.vocab; ++id) logits_.push_back(fake_logit(state, id));
        if (cell(p).token == fake_.nan_token) logits_[logits_.size() - fake_.vocab / 2] = NAN;
      }
    }
  }

  FakeOptions fake_;
  Plan plan_;
  Weights weights_;
  CompileOptions options_;
  std::vector<Cell> cells_;  // [n_pages, page_size]
  std::vector<float> logits_;
  std::vector<uint64_t> states_;  // [rows] of the last batch
};

// What the toy model says to a request that runs alone, without engine, pages or batches.
struct FakeResult {
  std::vector<int32_t> tokens;
  FinishReason reason = FinishReason::kMaxTokens;
  bool operator==(const FakeResult&) const = default;
};

inline FakeResult fake_result(const Request& request, uint32_t vocab) {
  FakeResult result;
  Sampler sampler(vocab);
  std::vector<int32_t> history = request.tokens;
  for (uint32_t index = 0; index < request.max_tokens; ++index) {
    uint64_t state = 0;
    for (uint32_t p = 0; p < history.size(); ++p) state = fake_state(state, history[p], p);
    std::vector<float> logits;
    for (uint32_t id = 0; id < vocab; ++id) logits.push_back(fake_logit(state, id));
    const int32_t id = sampler.sample(logits, request.sampling, history, index);
    if (std::count(request.eos.begin(), request.eos.end(), id) > 0) {
      result.reason = FinishReason::kEos;
      break;
    }
    history.push_back(id);
    result.tokens.push_back(id);
  }
  return result;
}

}  // namespace llorch
