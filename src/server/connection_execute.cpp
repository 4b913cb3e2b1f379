// POST /execute after validation: the job, its event stream, and the watch for a client that leaves.
#include <fmt/format.h>

#include <boost/asio/post.hpp>
#include <boost/beast/http/field.hpp>
#include <cmath>
#include <utility>
#include <vector>

#include "server/channel.h"
#include "server/connection.h"

namespace llorch {

namespace {

constexpr size_t kMaxPipelinedBytes = 64 << 10;

double ms_since(EventStream::Clock::time_point begin) {
  const double ms = std::chrono::duration<double, std::milli>(EventStream::Clock::now() - begin).count();
  return std::round(ms * 1000) / 1000;
}

}  // namespace

asio::awaitable<void> Connection::execute(PreparedJob prepared) {
  const ExecuteRequest& request = prepared.request;
  service_.log.info("request accepted", {{"job_id", request.job_id},
                                         {"correlation_id", correlation_id_},
                                         {"prompt_tokens", prepared.engine_request.tokens.size()},
                                         {"max_tokens", request.max_tokens}});
  EventStream events(service_.model, service_.tokenizer, prepared, service_.options.metrics_interval);
  Job job(service_.jobs, service_.engine, service_.bell, request.job_id, std::move(prepared.engine_request));
  watch(job.channel());
  co_await stream_events(job, events);
  co_await end_watch();
  if (gone_ && !events.ended()) {
    service_.log.info(
        "request cancelled: the client is gone",
        {{"job_id", job.job_id()}, {"correlation_id", correlation_id_}, {"tokens_out", events.tokens_out()}});
  }
}

// Text is made only when the socket has taken what was written before, so a slow reader holds small events, not text.
asio::awaitable<void> Connection::stream_events(Job& job, EventStream& events) {
  const auto begin = EventStream::Clock::now();
  bool first_token_logged = false;
  co_await send_stream_head();
  std::vector<Event> taken;
  std::string frames;
  while (!gone_ && !events.ended()) {
    co_await job.channel()->wait();
    frames.clear();
    job.channel()->take(taken);
    for (const Event& event : taken) events.write(event, EventStream::Clock::now(), frames);
    if (events.wants_cancel()) job.cancel();
    if (!first_token_logged && events.tokens_out() > 0) {
      first_token_logged = true;
      service_.log.info("first token",
                        {{"job_id", job.job_id()}, {"correlation_id", correlation_id_}, {"ttft_ms", ms_since(begin)}});
    }
    if (events.ended()) log_end(job, *events.ended());  // who has the end of the stream finds it in the log
    if (gone_ || frames.empty()) continue;
    make_chunk(frames, events.ended().has_value());
    std::string_view bytes = frames;
    write_now(bytes);
    if (!gone_ && !bytes.empty()) co_await write(bytes);
  }
}

// The number of the request is what a bundle of the flight recorder has for a name.
void Connection::log_end(const Job& job, const StreamEnd& end) const {
  if (end.stop_reason.empty()) {
    Logger::Fields fields = {{"job_id", job.job_id()},       {"correlation_id", correlation_id_},
                             {"request", job.request_id()},  {"code", to_string(end.failure.code)},
                             {"error", end.failure.message}, {"tokens_out", end.tokens_out}};
    fields.update(failure_detail(end.failure));
    service_.log.warn("request failed", fields);
  } else {
    service_.log.info("request ended", {{"job_id", job.job_id()},
                                        {"correlation_id", correlation_id_},
                                        {"request", job.request_id()},
                                        {"stop_reason", end.stop_reason},
                                        {"tokens_out", end.tokens_out},
                                        {"decode_time_ms", end.decode_time_ms}});
  }
}

asio::awaitable<void> Connection::send_stream_head() {
  keep_alive_ = keep_alive_ && chunked_ && !service_.closing;
  const std::string head = fmt::format(
      "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\nX-Accel-Buffering: no\r\n"
      "X-Correlation-Id: {}\r\nConnection: {}\r\n{}\r\n",
      correlation_id_, keep_alive_ ? "keep-alive" : "close", chunked_ ? "Transfer-Encoding: chunked\r\n" : "");
  co_await write(head);
}

// One chunk for all frames that were ready, so one packet as a rule; after the last ones, the end of the body too.
void Connection::make_chunk(std::string& frames, bool last) const {
  if (!chunked_) return;
  frames.insert(0, fmt::format("{:x}\r\n", frames.size()));
  frames += last ? "\r\n0\r\n\r\n" : "\r\n";
}

// Keeps a read pending, which is how a disconnect shows while nothing is written. What comes is the next request
// (pipelined) and stays in the buffer. A peer that has only closed its sending side counts as gone too.
void Connection::watch(std::shared_ptr<Channel> channel) {
  watching_ = buffer_.size() < kMaxPipelinedBytes;
  if (!watching_) return;
  const auto space = buffer_.prepare(4096);
  auto on_read = [self = shared_from_this(), channel = std::move(channel)](error_code error, size_t n) mutable {
    self->buffer_.commit(n);
    if (!error && !self->watch_ends_) return self->watch(std::move(channel));
    self->watching_ = false;
    if (!error || error == asio::error::operation_aborted) return;
    self->gone_ = true;
    self->close();  // ends a write that the peer no longer takes
    channel->interrupt();
  };
  stream_.socket().async_read_some(space, std::move(on_read));
}

asio::awaitable<void> Connection::end_watch() {
  watch_ends_ = true;
  error_code ignored;
  stream_.socket().cancel(ignored);
  while (watching_) co_await asio::post(service_.io, asio::use_awaitable);  // its handler is queued already
  watch_ends_ = false;
  if (gone_) keep_alive_ = false;
}

}  // namespace llorch
