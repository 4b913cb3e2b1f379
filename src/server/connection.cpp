// HTTP: reading requests within limits, answering them, refusing them.
#include "server/connection.h"

#include <fmt/format.h>

#include <boost/asio/write.hpp>
#include <boost/beast/http/error.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/read.hpp>
#include <boost/beast/http/write.hpp>
#include <exception>
#include <utility>

#include "server/correlation.h"

namespace llorch {

namespace beast = boost::beast;
namespace http = boost::beast::http;
using asio::redirect_error;
using asio::use_awaitable;

namespace {

std::string_view view(beast::string_view text) { return {text.data(), text.size()}; }

// The answer to a request that could not be read; nothing if there is nobody left to answer.
std::optional<Problem> unreadable(const error_code& error) {
  if (error == http::error::header_limit || error == http::error::buffer_overflow) {
    return problem::header_too_large(kMaxHeaderBytes);
  }
  if (error == http::error::body_limit) return problem::payload_too_large(kMaxBodyBytes);
  const bool peer_left = error == http::error::end_of_stream || error == http::error::partial_message ||
                         error.category() != make_error_code(http::error::bad_method).category();
  if (peer_left) return std::nullopt;
  Problem out = problem::bad_request("this is not HTTP/1.1: " + error.message());
  out.must_close = true;
  return out;
}

}  // namespace

Connection::Connection(asio::ip::tcp::socket socket, Service& service)
    : stream_(std::move(socket)), service_(service), buffer_(kMaxBodyBytes) {
  error_code ignored;
  stream_.socket().set_option(asio::ip::tcp::no_delay(true), ignored);  // a token leaves when it is written
  stream_.socket().non_blocking(true, ignored);                         // for write_now()
}

asio::awaitable<void> Connection::serve() {
  try {
    co_await serve_requests();
  } catch (const std::exception& error) {
    service_.log.error("connection failed", {{"correlation_id", correlation_id_}, {"error", error.what()}});
  }
  close();
}

asio::awaitable<void> Connection::serve_requests() {
  while (keep_alive_ && !service_.closing) {
    const std::optional<Request> request = co_await read_request();
    if (!request) break;
    co_await answer(*request);
  }
  if (!gone_) co_await close_gently();
}

asio::awaitable<void> Connection::turn_away() {
  idle_ = false;
  Problem problem =
      problem::unavailable(ErrorCode::kTooManyConnections, "the worker has as many connections as it takes", 1);
  problem.must_close = true;
  correlation_id_ = correlation_id({});
  co_await refuse(std::move(problem));
  co_await close_gently();
  close();
}

void Connection::close() {
  error_code ignored;
  stream_.socket().close(ignored);
}

// The next request that has a route. Others are answered here; nothing when the connection is to end.
asio::awaitable<std::optional<Connection::Request>> Connection::read_request() {
  while (keep_alive_ && !service_.closing) {
    http::request_parser<http::string_body> parser;
    parser.header_limit(kMaxHeaderBytes);
    parser.body_limit(kMaxBodyBytes);
    error_code error;
    idle_ = true;
    head_only_ = false;
    stream_.expires_after(service_.options.idle_timeout);
    co_await http::async_read_header(stream_, buffer_, parser, redirect_error(use_awaitable, error));
    idle_ = false;

    std::optional<Problem> refused;
    Route route = Route::kHealth;
    if (error) {
      refused = unreadable(error);
      if (!refused) break;
      correlation_id_ = correlation_id({});
    } else {
      const auto& head = parser.get();
      correlation_id_ = correlation_id(view(head["X-Correlation-Id"]));
      keep_alive_ = head.keep_alive();
      chunked_ = head.version() >= 11;
      head_only_ = head.method() == http::verb::head;
      auto found = find_route({view(head.method_string()), view(head.target()), view(head[http::field::content_type]),
                               view(head[http::field::authorization])},
                              service_.options.token);
      if (auto* problem = std::get_if<Problem>(&found)) {
        refused = std::move(*problem);
        refused->must_close = refused->must_close || !parser.is_done();
      } else {
        route = std::get<Route>(found);
      }
    }

    if (!refused && !parser.is_done()) {
      if (beast::iequals(parser.get()[http::field::expect], "100-continue")) {
        if (!co_await write("HTTP/1.1 100 Continue\r\n\r\n")) break;
      }
      stream_.expires_after(service_.options.body_timeout);
      co_await http::async_read(stream_, buffer_, parser, redirect_error(use_awaitable, error));
      if (error) {
        refused = unreadable(error);
        if (!refused) break;
      }
    }
    if (!refused) co_return Request{route, std::move(parser.get().body())};
    co_await refuse(std::move(*refused));
  }
  co_return std::nullopt;
}

asio::awaitable<void> Connection::answer(const Request& request) {
  switch (request.route) {
    case Route::kHealth: {
      co_await send_json(200, health(service_));
      break;
    }
    case Route::kCancel: {
      auto cancelled = cancel(service_, request.body);
      if (auto* problem = std::get_if<Problem>(&cancelled)) {
        co_await refuse(std::move(*problem));
      } else {
        co_await send_json(202, std::get<nlohmann::json>(cancelled));
      }
      break;
    }
    case Route::kExecute: {
      auto prepared = prepare(request.body);
      if (auto* problem = std::get_if<Problem>(&prepared)) {
        co_await refuse(std::move(*problem));
      } else {
        co_await execute(std::move(std::get<PreparedJob>(prepared)));
      }
      break;
    }
  }
}

// A bug behind a request must cost one answer, not the connection without a word.
std::variant<PreparedJob, Problem> Connection::prepare(const std::string& body) const {
  try {
    return prepare_job(service_, body);
  } catch (const std::exception& error) {
    service_.log.error("request failed", {{"correlation_id", correlation_id_},
                                          {"code", to_string(ErrorCode::kInternal)},
                                          {"error", with_causes(error)}});
    return problem::internal();
  }
}

asio::awaitable<void> Connection::refuse(Problem problem) {
  if (problem.must_close) {
    keep_alive_ = false;
    unread_ = true;
  }
  service_.log.debug("request refused", {{"correlation_id", correlation_id_},
                                         {"status", problem.status()},
                                         {"code", to_string(problem.code)},
                                         {"message", problem.message}});
  Response response(static_cast<http::status>(problem.status()), 11);
  if (!problem.allow.empty()) response.set(http::field::allow, problem.allow);
  if (problem.code == ErrorCode::kUnauthorized) response.set(http::field::www_authenticate, "Bearer");
  if (problem.retry_after_s != 0) response.set(http::field::retry_after, std::to_string(problem.retry_after_s));
  response.body() = problem.body().dump();
  co_await send(std::move(response));
}

asio::awaitable<void> Connection::send_json(unsigned status, const nlohmann::json& body) {
  Response response(static_cast<http::status>(status), 11);
  response.body() = body.dump();
  co_await send(std::move(response));
}

asio::awaitable<void> Connection::send(Response response) {
  keep_alive_ = keep_alive_ && !service_.closing;
  response.set(http::field::content_type, "application/json");
  response.set("X-Correlation-Id", correlation_id_);
  response.keep_alive(keep_alive_);
  if (head_only_) response.body().clear();
  response.prepare_payload();
  error_code error;
  stream_.expires_after(service_.options.write_timeout);
  co_await http::async_write(stream_, response, redirect_error(use_awaitable, error));
  if (error) gone_ = true;
  if (gone_) keep_alive_ = false;
}

// As much as the socket takes at once, and takes it off `bytes`. As a rule that is all, and then there is no timer, no
// coroutine and no way through the queue of the io_context.
void Connection::write_now(std::string_view& bytes) {
  error_code error;
  const size_t sent = stream_.socket().send(asio::buffer(bytes), 0, error);
  if (error && error != asio::error::would_block && error != asio::error::try_again) gone_ = true;
  bytes.remove_prefix(sent);
}

// False when the peer is gone.
asio::awaitable<bool> Connection::write(std::string_view bytes) {
  if (!gone_) write_now(bytes);
  if (gone_ || bytes.empty()) co_return !gone_;
  error_code error;
  stream_.expires_after(service_.options.write_timeout);
  co_await asio::async_write(stream_, asio::buffer(bytes), redirect_error(use_awaitable, error));
  if (error) gone_ = true;
  co_return !gone_;
}

// A peer that still sends what nobody will read would meet a reset and lose our answer: read on for a moment.
asio::awaitable<void> Connection::close_gently() {
  error_code error;
  stream_.socket().shutdown(asio::ip::tcp::socket::shutdown_send, error);
  if (!unread_) co_return;
  stream_.expires_after(std::chrono::seconds(2));
  for (size_t total = 0; !error && total < 8 * kMaxBodyBytes;) {
    buffer_.clear();
    const auto space = buffer_.prepare(16 << 10);
    total += co_await stream_.async_read_some(space, redirect_error(use_awaitable, error));
  }
}

}  // namespace llorch
