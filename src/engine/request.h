// What goes into the engine (requests of token ids) and what comes out of it (events).
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "backend/backend.h"
#include "engine/sampling_params.h"

namespace llorch {

using RequestId = uint64_t;

struct Request {
  std::vector<int32_t> tokens;  // the prompt, special tokens included; at least one
  SamplingParams sampling;
  uint32_t max_tokens = 0;   // at least 1
  std::vector<int32_t> eos;  // ids that end the sequence; none of them is ever emitted
  std::optional<std::chrono::steady_clock::time_point> deadline;
  bool record = false;  // EngineOptions::on_record hears of its end, however it ends
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

struct FinishEvent {
  FinishReason reason;
  uint32_t tokens_out;       // TokenEvents of this request
  double prefill_ms;         // StartEvent to the first sampled token
  double decode_ms;          // first sampled token to the end
  uint64_t logits_hash = 0;  // LogitsHash of all rows that were sampled, in order, with the one that gave EOS
};

// Codes: CANCELLED (before its StartEvent; afterwards a cancel is a FinishEvent), TIMEOUT (the deadline passed),
// INVALID_REQUEST and VRAM_OOM (it can never fit), INFERENCE_FAILED, NUMERIC_FAULT (logits with NaN or infinity, or all
// equal: nothing is sampled from them), SHUTTING_DOWN (submitted after drain() or stop()).
struct FailEvent {
  std::string code;
  std::string message;  // a complete sentence
  // INFERENCE_FAILED: where in the plan, if the backend could say. NUMERIC_FAULT: the first step that gives such
  // values, if a second run showed it.
  std::optional<StepFailure> step;
  // INFERENCE_FAILED: absolute position of its first row in that step. NUMERIC_FAULT: of the value in that step, or
  // else of the logits.
  uint32_t position = 0;
  uint32_t kv_len = 0;       // INFERENCE_FAILED, NUMERIC_FAULT: positions up to and with its last row
  uint64_t logits_hash = 0;  // of the rows that were sampled before
};

using Event = std::variant<StartEvent, TokenEvent, FinishEvent, FailEvent>;

// Called on the engine thread (see Engine::submit for the one exception); must neither block nor throw. It may call
// Engine::submit and Engine::cancel.
using EventSink = std::function<void(const Event&)>;

// Why a request can never be served.
struct Refusal {
  std::string code;     // INVALID_REQUEST or VRAM_OOM
  std::string message;  // names the counts: what was asked for and what there is
};

}  // namespace llorch
