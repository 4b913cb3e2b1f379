// One request of a load: what is asked, and what came back, checked and timed as it came.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "app/sse_reader.h"

namespace llorch {

struct LoadRequest {
  std::string prompt;
  size_t prompt_tokens = 0;  // that the prompt has by our tokenizer
  uint32_t max_tokens = 0;
  double temperature = 0.0;
  uint64_t seed = 0;

  std::string body(const std::string& job_id) const;  // of POST /execute
};

using LoadClock = std::chrono::steady_clock;

// Times are those at which bytes were read: tokens that came in one read have the same.
struct LoadAnswer {
  std::string error;  // empty: complete and right
  std::string model, backend, numerics;
  std::vector<int32_t> ids;
  double ttft_ms = 0.0;        // from the request to its first token
  double decode_ms = 0.0;      // from the first token to the last
  std::vector<float> gaps_ms;  // between one token and the next
};

// The events of one answer. What breaks the contract of docs/http-api.md, or is not what was asked for, is an error.
class AnswerReader {
 public:
  AnswerReader(const LoadRequest& request, LoadClock::time_point begin);
  AnswerReader(const AnswerReader&) = delete;
  AnswerReader& operator=(const AnswerReader&) = delete;

  // Bytes of the body that were read at `now`. Throws Error.
  void push(std::string_view bytes, LoadClock::time_point now);

  // The body has ended. Throws Error if it should not have.
  LoadAnswer finish();

 private:
  void take(std::string_view data);
  void take_token(const TokenFrame& frame);
  void take_other(std::string_view data);
  void take_started(const nlohmann::json& event);
  void take_end(const nlohmann::json& event);

  const LoadRequest& request_;
  LoadClock::time_point begin_, now_, first_token_, last_token_;
  SseReader events_;
  LoadAnswer answer_;
  bool started_ = false, ended_ = false;
};

}  // namespace llorch
