// Token frames are many and take no parser; all other events do.
#include "app/http_load_answer.h"

#include <nlohmann/json.hpp>
#include <utility>

#include "base/error.h"

namespace llorch {
namespace {

using nlohmann::json;

double ms_between(LoadClock::time_point from, LoadClock::time_point to) {
  return std::chrono::duration<double, std::milli>(to - from).count();
}

}  // namespace

std::string LoadRequest::body(const std::string& job_id) const {
  const json fields = {{"job_id", job_id},           {"prompt", prompt}, {"max_tokens", max_tokens},
                       {"temperature", temperature}, {"seed", seed},     {"ignore_eos", true}};
  return fields.dump();
}

AnswerReader::AnswerReader(const LoadRequest& request, LoadClock::time_point begin)
    : request_(request), begin_(begin), now_(begin), events_([this](std::string_view data) { take(data); }) {
  answer_.ids.reserve(request.max_tokens);
  answer_.gaps_ms.reserve(request.max_tokens);
}

void AnswerReader::push(std::string_view bytes, LoadClock::time_point now) {
  now_ = now;
  events_.push(bytes);
}

void AnswerReader::take(std::string_view data) {
  if (ended_) fail("an event comes after the end: {}", data.substr(0, 200));
  if (const auto token = read_token_frame(data)) {
    take_token(*token);
  } else {
    take_other(data);
  }
}

void AnswerReader::take_token(const TokenFrame& frame) {
  std::vector<int32_t>& ids = answer_.ids;
  if (!started_) fail("a token comes before `started`");
  if (!ids.empty() && frame.index + 1 == ids.size() && frame.id == ids.back()) return;  // text that had waited
  if (frame.index != ids.size()) fail("token {} comes where token {} should", frame.index, ids.size());
  if (ids.empty()) {
    first_token_ = now_;
  } else {
    answer_.gaps_ms.push_back(static_cast<float>(ms_between(last_token_, now_)));
  }
  last_token_ = now_;
  ids.push_back(frame.id);
}

void AnswerReader::take_other(std::string_view data) {
  const json event = parse_event(data);
  try {
    const std::string type = event.value("type", "");
    if (type == "started") {
      take_started(event);
    } else if (type == "token") {
      take_token({event.at("i").get<uint32_t>(), event.at("id").get<int32_t>()});
    } else if (type == "end") {
      take_end(event);
    } else if (type == "error") {
      fail("{}: {}", event.value("code", ""), event.value("message", ""));
    }
  } catch (const json::exception& error) {
    fail("an event has not the form of the contract ({}): {}", error.what(), data.substr(0, 200));
  }
}

void AnswerReader::take_started(const json& event) {
  started_ = true;
  answer_.model = event.value("model", "");
  answer_.backend = event.value("backend", "");
  answer_.numerics = event.value("numerics", "");
  const auto tokens = event.at("prompt_tokens").get<size_t>();
  if (tokens != request_.prompt_tokens) {
    fail("the prompt has {} tokens for the worker and {} for us: is --model the model that it serves ({})?", tokens,
         request_.prompt_tokens, answer_.model);
  }
}

void AnswerReader::take_end(const json& event) {
  ended_ = true;
  const auto reason = event.at("stop_reason").get<std::string>();
  const auto tokens = event.at("tokens_out").get<size_t>();
  if (tokens != answer_.ids.size()) fail("the end counts {} tokens, {} came", tokens, answer_.ids.size());
  if (reason != "MAX_TOKENS" || tokens != request_.max_tokens) {
    fail("the end is {} after {} tokens, expected MAX_TOKENS after {}", reason, tokens, request_.max_tokens);
  }
}

LoadAnswer AnswerReader::finish() {
  if (!ended_) fail("the stream broke off after {} tokens, without an end event", answer_.ids.size());
  answer_.ttft_ms = ms_between(begin_, first_token_);
  answer_.decode_ms = ms_between(first_token_, last_token_);
  return std::move(answer_);
}

}  // namespace llorch
