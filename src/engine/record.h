// What the engine remembers of a sequence and of its own last steps: the data of a flight recorder.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "engine/request.h"

namespace llorch {

// One step of the engine.
struct StepTiming {
  double start_ms = 0;  // since the engine was made
  double ms = 0;        // from Program::start() to the end of finish()
  uint32_t rows = 0, sequences = 0, logit_rows = 0;
  bool failed = false;  // one of them threw
};

// The last steps of an engine. Not thread-safe: belongs to the engine thread.
class StepLog {
 public:
  static constexpr size_t kSize = 32;

  void add(const StepTiming& step) { steps_[n_++ % kSize] = step; }

  // Oldest first.
  std::vector<StepTiming> last() const {
    std::vector<StepTiming> steps;
    for (size_t i = n_ > kSize ? n_ - kSize : 0; i < n_; ++i) steps.push_back(steps_[i % kSize]);
    return steps;
  }

 private:
  std::array<StepTiming, kSize> steps_;
  size_t n_ = 0;  // steps so far
};

// A sequence at its end: enough to run it again, and to see whether it goes the same way.
struct SequenceRecord {
  RequestId id = 0;
  std::vector<int32_t> tokens;  // prompt, then generated
  uint32_t n_prompt = 0;
  uint32_t max_tokens = 0;
  std::vector<int32_t> eos;
  SamplingParams sampling;
  // LogitsHash after each row that was sampled: one for each generated token, and one more if the last row gave EOS.
  std::vector<uint64_t> logits_hashes;
  std::optional<FinishReason> finish;  // it ended as it should, or
  std::optional<FailEvent> failure;    // it did not
  std::vector<StepTiming> last_steps;  // of the engine, oldest first; a step that failed is the last
};

// Called on the engine thread, before the request's own sink hears of its end; must not throw. All requests wait for
// it.
using RecordSink = std::function<void(const SequenceRecord&)>;

}  // namespace llorch
