// One client's connection: requests in, answers and event streams out, as a coroutine on the io thread.
#pragma once

#include <boost/asio/ip/tcp.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/core/tcp_stream.hpp>
#include <boost/beast/http/message.hpp>
#include <boost/beast/http/string_body.hpp>
#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "server/asio.h"
#include "server/event_stream.h"
#include "server/routes.h"
#include "server/service.h"

namespace llorch {

inline constexpr size_t kMaxBodyBytes = 1 << 20;
inline constexpr uint32_t kMaxHeaderBytes = 16 << 10;

class Connection : public std::enable_shared_from_this<Connection> {
 public:
  Connection(asio::ip::tcp::socket socket, Service& service);

  // Serves requests until the peer leaves, asks to close, breaks HTTP, or the service closes. Never throws.
  asio::awaitable<void> serve();

  // Answers the first request with 503, whatever it is.
  asio::awaitable<void> turn_away();

  bool idle() const { return idle_; }  // between two requests
  void close();

 private:
  struct Request {
    Route route;
    std::string body;
  };
  using Response = boost::beast::http::response<boost::beast::http::string_body>;
  template <typename T>
  using Awaitable = asio::awaitable<T>;

  Awaitable<void> serve_requests();
  Awaitable<std::optional<Request>> read_request();
  Awaitable<void> answer(const Request& request);
  Awaitable<void> execute(PreparedJob prepared);
  Awaitable<void> stream_events(Job& job, EventStream& events);
  void log_end(const Job& job, const StreamEnd& end) const;
  std::variant<PreparedJob, Problem> prepare(const std::string& body) const;

  Awaitable<void> send_json(unsigned status, const nlohmann::json& body);
  Awaitable<void> refuse(Problem problem);
  Awaitable<void> send(Response response);
  Awaitable<void> send_stream_head();
  void make_chunk(std::string& frames, bool last) const;
  void write_now(std::string_view& bytes);
  Awaitable<bool> write(std::string_view bytes);
  Awaitable<void> close_gently();

  void watch(std::shared_ptr<Channel> channel);
  Awaitable<void> end_watch();

  boost::beast::tcp_stream stream_;
  Service& service_;
  boost::beast::flat_buffer buffer_;  // read and not parsed yet
  std::string correlation_id_;
  bool idle_ = true;
  bool keep_alive_ = true;
  bool head_only_ = false;  // the method is HEAD
  bool chunked_ = true;     // HTTP/1.1
  bool gone_ = false;       // the peer has closed, or the connection failed
  bool unread_ = false;     // refused before all of it was read
  bool watching_ = false;   // a read is pending while a response streams
  bool watch_ends_ = false;
};

}  // namespace llorch
