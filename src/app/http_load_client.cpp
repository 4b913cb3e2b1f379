// Callbacks on one io_context: a read costs less than the worker's write of the same bytes.
#include "app/http_load_client.h"

#include <fmt/format.h>

#include <boost/asio/connect.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http/error.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/string_body.hpp>
#include <charconv>
#include <memory>
#include <optional>
#include <utility>

#include "app/commands.h"

namespace llorch {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = boost::beast::http;
using asio::ip::tcp;
using boost::system::error_code;

constexpr size_t kReadBytes = 16 << 10;
constexpr std::chrono::milliseconds kWatchInterval{50};

// What the clients of a run share.
struct Shared {
  const LoadTarget& target;
  const std::vector<LoadRequest>& requests;
  tcp::resolver::results_type endpoints;
  LoadRun run;
  size_t next = 0;                                 // request
  bool failed = false;                             // no new requests
  LoadClock::time_point ended = LoadClock::now();  // of the last answer
};

class Client {
 public:
  Client(asio::io_context& io, Shared& shared) : socket_(io), shared_(shared) { buffer_.reserve(kReadBytes); }
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;

  // Sends the next request, if there is one.
  void next() {
    if (shared_.failed || shared_.next == shared_.requests.size()) return;
    index_ = shared_.next++;
    const LoadRequest& request = shared_.requests[index_];
    const LoadTarget& target = shared_.target;
    const std::string body = request.body(fmt::format("load-{}", index_));
    text_ = fmt::format(
        "POST /execute HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\n{}Content-Length: {}\r\n\r\n{}",
        target.host, target.bearer_token.empty() ? "" : "Authorization: Bearer " + target.bearer_token + "\r\n",
        body.size(), body);
    heard_ = LoadClock::now();
    reader_.emplace(request, heard_);
    socket_.is_open() ? send() : connect();
  }

  void give_up_if_silent(LoadClock::time_point now) {
    if (!reader_ || now - heard_ < shared_.target.silence) return;
    end(fmt::format("the worker sent nothing for {} ms", shared_.target.silence.count()));
  }

 private:
  void connect() {
    asio::async_connect(socket_, shared_.endpoints, [this](error_code error, const tcp::endpoint&) {
      if (error) return end("no connection: " + error.message());
      socket_.set_option(tcp::no_delay(true), error);
      send();
    });
  }

  void send() {
    asio::async_write(socket_, asio::buffer(text_), [this](error_code error, size_t) {
      if (error) return end("the request could not be sent: " + error.message());
      parser_.emplace();
      parser_->body_limit(boost::none);
      parser_->eager(true);
      read();
    });
  }

  void read() {
    socket_.async_read_some(buffer_.prepare(kReadBytes), [this](error_code error, size_t n) {
      if (!reader_) return;  // given up
      heard_ = LoadClock::now();
      buffer_.commit(n);
      if (error) return end("the connection broke: " + error.message());
      parse();
    });
  }

  // All that was read: Beast's own read operations would wait for the end of the body, or return for each chunk.
  void parse() {
    error_code error;
    while (buffer_.size() > 0 && !parser_->is_done() && !error) {
      buffer_.consume(parser_->put(buffer_.data(), error));
    }
    if (error && error != http::error::need_more) return end("this is not HTTP/1.1: " + error.message());
    std::string& body = parser_->get().body();
    const bool ok = parser_->is_header_done() && parser_->get().result() == http::status::ok;
    if (ok) {
      try {
        reader_->push(body, heard_);
      } catch (const Error& wrong) {
        return end(wrong.what());
      }
      body.clear();
    }
    if (!parser_->is_done()) return read();
    end(ok ? std::string() : fmt::format("HTTP {}: {}", parser_->get().result_int(), body));
  }

  void end(std::string error) {
    if (!reader_) return;  // given up
    LoadAnswer answer;
    try {
      if (error.empty()) answer = reader_->finish();
    } catch (const Error& wrong) {
      error = wrong.what();
    }
    const bool failed = !error.empty();
    answer.error = std::move(error);
    reader_.reset();
    shared_.run.answers[index_] = std::move(answer);
    shared_.failed = shared_.failed || failed;
    shared_.ended = LoadClock::now();
    error_code ignored;
    if (failed || !parser_->keep_alive()) socket_.close(ignored);
    next();
  }

  tcp::socket socket_;
  Shared& shared_;
  size_t index_ = 0;
  std::string text_;  // of the request
  beast::flat_buffer buffer_;
  std::optional<http::response_parser<http::string_body>> parser_;
  std::optional<AnswerReader> reader_;  // there is one while a request is in flight
  LoadClock::time_point heard_;
};

// Connections are made by whoever needs one; a name is looked up once.
tcp::resolver::results_type resolve(asio::io_context& io, const LoadTarget& target) {
  error_code error;
  auto endpoints = tcp::resolver(io).resolve(target.host, std::to_string(target.port), error);
  if (error) fail("{}:{}: {}", target.host, target.port, error.message());
  return endpoints;
}

}  // namespace

LoadTarget parse_load_url(const std::string& url) {
  const auto refuse = [&] { throw InputError(fmt::format("--url {}: expected http://HOST or http://HOST:PORT", url)); };
  constexpr std::string_view kScheme = "http://";
  if (url.rfind(kScheme, 0) != 0) refuse();
  std::string_view rest = std::string_view(url).substr(kScheme.size());
  if (!rest.empty() && rest.back() == '/') rest.remove_suffix(1);
  LoadTarget target;
  target.port = 80;
  const size_t host_end = rest.rfind(']') == std::string_view::npos ? 0 : rest.rfind(']');  // [::1]:9876
  if (const size_t colon = rest.find(':', host_end); colon != std::string_view::npos) {
    const char* end = rest.data() + rest.size();
    const auto [stopped, error] = std::from_chars(rest.data() + colon + 1, end, target.port);
    if (error != std::errc() || stopped != end || target.port == 0) refuse();
    rest = rest.substr(0, colon);
  }
  if (rest.size() > 2 && rest.front() == '[' && rest.back() == ']') rest = rest.substr(1, rest.size() - 2);
  if (rest.empty() || rest.find_first_of("/?#@[] ") != std::string_view::npos) refuse();
  target.host = rest;
  return target;
}

LoadRun run_load(const LoadTarget& target, const std::vector<LoadRequest>& requests, uint32_t n_clients,
                 const std::atomic<bool>& stop) {
  asio::io_context io{1};
  Shared shared{target, requests, resolve(io, target), {}};
  shared.run.answers.resize(requests.size());
  std::vector<std::unique_ptr<Client>> clients;
  for (uint32_t i = 0; i < n_clients; ++i) clients.push_back(std::make_unique<Client>(io, shared));
  const auto begin = LoadClock::now();
  for (const auto& client : clients) client->next();
  while (!io.stopped()) {
    io.run_for(kWatchInterval);
    if (stop) fail("interrupted");
    const auto now = LoadClock::now();
    for (const auto& client : clients) client->give_up_if_silent(now);
  }
  shared.run.answers.resize(shared.next);
  shared.run.seconds = std::chrono::duration<double>(shared.ended - begin).count();
  return std::move(shared.run);
}

}  // namespace llorch
