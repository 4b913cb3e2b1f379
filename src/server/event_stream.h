// One request's engine events turned into the SSE frames of the contract: text, stop strings, order.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "engine/request.h"
#include "server/execute_request.h"
#include "server/service.h"
#include "server/stop_matcher.h"
#include "text/stream_decoder.h"

namespace llorch {

// How a stream ended, for the log.
struct StreamEnd {
  std::string stop_reason;  // of an end event; empty: error
  uint32_t tokens_out = 0;
  int64_t decode_time_ms = 0;
  FailEvent failure;  // of an error event
};

// started, token*, metrics*, then exactly one of end and error. Every sampled token has its frame at once; text that is
// not certain yet (half a character, what may begin a stop string) comes with a later one. Text that is left when the
// sequence ends comes in one more token frame with the last token's i and id.
class EventStream {
 public:
  using Clock = std::chrono::steady_clock;

  EventStream(const ServedModel& model, const std::shared_ptr<const Tokenizer>& tokenizer, const PreparedJob& job,
              std::chrono::milliseconds metrics_interval);

  // Appends the frames of an event that was read at `now`.
  void write(const Event& event, Clock::time_point now, std::string& out);

  // A stop string has matched: the sequence should be cancelled; the end frame follows its last event.
  bool wants_cancel() const { return stops_.matched().has_value(); }

  uint32_t tokens_out() const { return tokens_out_; }
  const std::optional<StreamEnd>& ended() const { return ended_; }

 private:
  void write_started(std::string& out);
  void write_token(const TokenEvent& token, Clock::time_point now, std::string& out);
  void write_metrics(Clock::time_point now, std::string& out);
  void write_end(const FinishEvent& finish, Clock::time_point now, std::string& out);
  void write_error(const FailEvent& failure, Clock::time_point now, std::string& out);
  void write_rest(std::string& out);
  std::string rest();

  const ServedModel& model_;
  std::string job_id_;
  size_t prompt_tokens_;
  uint32_t max_tokens_;
  std::chrono::milliseconds metrics_interval_;
  StreamDecoder decoder_;
  StopMatcher stops_;
  uint32_t tokens_out_ = 0;
  int32_t last_id_ = 0;
  Clock::time_point first_token_, last_metrics_;
  std::optional<StreamEnd> ended_;
};

// A decoder for what follows these ids: it knows that it does not stand at the beginning of a text (where some
// tokenizers drop a space), and holds nothing of the prompt's own text.
StreamDecoder decoder_after(std::span<const int32_t> prompt, const std::shared_ptr<const Tokenizer>& tokenizer);

// What is known of a failure beside its code and message, for clients and logs: step, layer, verb, shapes, dtype,
// device, position, kv_len and cause (strings, outermost first), where they apply.
nlohmann::ordered_json failure_detail(const FailEvent& failure);

}  // namespace llorch
