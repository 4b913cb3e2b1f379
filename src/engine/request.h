// What goes into the engine (requests of token ids) and what comes out of it (events).
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "backend/backend.h"
#include "sampling/params.h"

namespace llorch {

using RequestId = uint64_t;

struct Request {
  std::vector<int32_t> tokens;  // the prompt, special tokens included; at least one
  SamplingParams sampling;
  uint32_t max_tokens = 0;   // at least 1
  std::vector<int32_t> eos;  // ids that end the sequence; none of them is ever emitted
  std::optional<std::chrono::steady_clock::time_point> deadline;
  bool record = false;  // EngineOptions::on_record hears of its end, however it ends, once it has begun
};

// The events of a request, in order: at most one StartEvent, TokenEvents, then exactly one FinishEvent or FailEvent.

// The request's first rows are in the step that is about to run.
struct StartEvent {};

// A token as soon as it is sampled.
struct TokenEvent {
  int32_t id;
  uint32_t index;            // from 0
  uint64_t logits_hash = 0;  // of all its rows so far, this token's too; see FinishEvent
};

enum class FinishReason : uint8_t { kMaxTokens, kEos, kCancelled };

constexpr std::string_view to_string(FinishReason reason) {
  switch (reason) {
    case FinishReason::kMaxTokens:
      return "MAX_TOKENS";
    case FinishReason::kEos:
      return "EOS";
    case FinishReason::kCancelled:
      return "CANCELLED";
  }
  return "";
}

struct FinishEvent {
  FinishReason reason;
  uint32_t tokens_out;       // TokenEvents of this request
  double prefill_ms;         // StartEvent to the first sampled token
  double decode_ms;          // first sampled token to the end
  uint64_t logits_hash = 0;  // LogitsHash of all rows that were sampled, in order, with the one that gave EOS
};

// Codes: kCancelled (before its StartEvent; afterwards a cancel is a FinishEvent), kTimeout (the deadline passed),
// kInvalidRequest and kOutOfPages (it can never fit), kNumericFault (logits with NaN or infinity, or all equal: nothing
// is sampled from them), kShuttingDown (submitted after drain() or stop()); of a step that failed: StepError's.
struct FailEvent {
  ErrorCode code = ErrorCode::kWorkerFault;
  std::string message;  // a complete sentence; what the fields below hold is not in it, but the step's name
  // Where in the plan, if the backend could say. kNumericFault: the first step that gives such values, if a second run
  // showed it.
  std::optional<StepFailure> step;
  // Where positions apply: the absolute one of its first row in that step. kNumericFault: of the value in that step, or
  // else of the logits.
  uint32_t position = 0;
  uint32_t kv_len = 0;              // positions up to and with its last row; 0: positions do not apply
  uint64_t logits_hash = 0;         // of the rows that were sampled before
  std::vector<std::string> causes;  // outermost first
};

using Event = std::variant<StartEvent, TokenEvent, FinishEvent, FailEvent>;

// Called on the engine thread (see Engine::submit for the one exception); must neither block nor throw. It may call
// Engine::submit and Engine::cancel.
using EventSink = std::function<void(const Event&)>;

// Why a request can never be served.
struct Refusal {
  ErrorCode code;       // kInvalidRequest, kOutOfPages; kShuttingDown
  std::string message;  // names the counts: what was asked for and what there is
};

}  // namespace llorch
