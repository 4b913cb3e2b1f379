// The frames, each written in one place.
#include "server/event_stream.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "base/timestamp.h"
#include "server/sse_frame.h"

namespace llorch {
namespace {

using Json = nlohmann::ordered_json;

double seconds_between(EventStream::Clock::time_point from, EventStream::Clock::time_point to) {
  return std::chrono::duration<double>(to - from).count();
}

}  // namespace

Json failure_detail(const FailEvent& failure) {
  Json fields = Json::object();
  if (failure.step) {
    const StepFailure& step = *failure.step;
    fields["step"] = step.step;
    if (const auto layer = layer_of(step.step)) fields["layer"] = *layer;
    fields["verb"] = step.verb;
    fields["shapes"] = step.shapes;
    fields["dtype"] = step.dtype;
    fields["device"] = step.device;
  }
  if (failure.kv_len > 0) {
    fields["position"] = failure.position;
    fields["kv_len"] = failure.kv_len;
  }
  if (!failure.causes.empty()) fields["cause"] = failure.causes;
  return fields;
}

StreamDecoder decoder_after(std::span<const int32_t> prompt, const std::shared_ptr<const Tokenizer>& tokenizer) {
  constexpr size_t kEnough = 16;  // a few tokens make the decoder's state; byte tokens at the end may hold text back
  const auto tail = prompt.last(std::min(prompt.size(), kEnough));
  for (size_t n = tail.size(); n > 0; --n) {
    StreamDecoder decoder(tokenizer, true);
    for (const int32_t id : tail.first(n)) decoder.push(id);
    StreamDecoder copy = decoder;
    if (copy.flush().empty()) return decoder;
  }
  return {tokenizer, true};
}

EventStream::EventStream(const ServedModel& model, const std::shared_ptr<const Tokenizer>& tokenizer,
                         const PreparedJob& job, std::chrono::milliseconds metrics_interval)
    : model_(model),
      job_id_(job.request.job_id),
      prompt_tokens_(job.engine_request.tokens.size()),
      max_tokens_(job.request.max_tokens),
      metrics_interval_(metrics_interval),
      decoder_(decoder_after(job.engine_request.tokens, tokenizer)),
      stops_(job.request.stop) {}

void EventStream::write(const Event& event, Clock::time_point now, std::string& out) {
  struct Writer {
    EventStream& stream;
    Clock::time_point now;
    std::string& out;
    void operator()(const StartEvent&) const { stream.write_started(out); }
    void operator()(const TokenEvent& token) const { stream.write_token(token, now, out); }
    void operator()(const FinishEvent& finish) const { stream.write_end(finish, now, out); }
    void operator()(const FailEvent& failure) const { stream.write_error(failure, now, out); }
  };
  if (!ended_) std::visit(Writer{*this, now, out}, event);
}

void EventStream::write_started(std::string& out) {
  out += sse_frame({{"type", "started"},
                    {"job_id", job_id_},
                    {"model", model_.name},
                    {"started_at", iso8601_now()},
                    {"prompt_tokens", prompt_tokens_},
                    {"backend", model_.backend},
                    {"numerics", model_.numerics}});
}

void EventStream::write_token(const TokenEvent& token, Clock::time_point now, std::string& out) {
  if (stops_.matched()) return;  // sampled before the cancel arrived
  if (tokens_out_ == 0) first_token_ = last_metrics_ = now;
  last_id_ = token.id;
  tokens_out_ = token.index + 1;
  std::string text = stops_.push(decoder_.push(token.id));
  if (tokens_out_ == max_tokens_) text += rest();
  append_token_frame(out, text, token.index, token.id);
  if (now - last_metrics_ >= metrics_interval_) write_metrics(now, out);
}

// The rate of this request since its first token (which is not counted: its time is the prompt's).
void EventStream::write_metrics(Clock::time_point now, std::string& out) {
  const double elapsed = seconds_between(first_token_, now);
  const double rate = elapsed > 0 ? (tokens_out_ - 1) / elapsed : 0;
  out += sse_frame(
      {{"type", "metrics"}, {"tokens_per_sec", std::round(rate * 100) / 100}, {"vram_bytes", model_.vram_bytes}});
  last_metrics_ = now;
}

// Text that waited for a token that does not come.
std::string EventStream::rest() {
  if (stops_.matched()) return {};
  std::string text = stops_.push(decoder_.flush());
  if (!stops_.matched()) text += stops_.flush();
  return text;
}

void EventStream::write_rest(std::string& out) {
  if (tokens_out_ == 0) return;
  const std::string text = rest();
  if (!text.empty()) append_token_frame(out, text, tokens_out_ - 1, last_id_);
}

void EventStream::write_end(const FinishEvent& finish, Clock::time_point now, std::string& out) {
  write_rest(out);
  if (tokens_out_ > 0) write_metrics(now, out);
  ended_ = StreamEnd{std::string(stops_.matched() ? "STOP_SEQUENCE" : to_string(finish.reason)),
                     tokens_out_,
                     std::llround(finish.decode_ms),
                     {}};
  Json event = {{"type", "end"},
                {"tokens_out", ended_->tokens_out},
                {"decode_time_ms", ended_->decode_time_ms},
                {"stop_reason", ended_->stop_reason}};
  if (stops_.matched()) event["stop_sequence_matched"] = *stops_.matched();
  out += sse_frame(event);
}

void EventStream::write_error(const FailEvent& failure, Clock::time_point now, std::string& out) {
  if (stops_.matched()) {  // the text is complete; what became of the sequence after it is of no interest
    write_end({FinishReason::kCancelled, tokens_out_, 0, seconds_between(first_token_, now) * 1e3}, now, out);
    return;
  }
  write_rest(out);
  Json event = {{"type", "error"}, {"code", to_string(failure.code)}, {"message", failure.message}};
  event.update(failure_detail(failure));
  event["backend"] = model_.backend;
  event["device"] = model_.device;
  event["retriable"] = info(failure.code).retriable;
  event["hint"] = info(failure.code).remedy;
  ended_ = StreamEnd{{}, tokens_out_, 0, failure};
  out += sse_frame(event);
}

}  // namespace llorch
