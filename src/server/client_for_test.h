// A small blocking HTTP client for tests that need to see and to break the protocol.
#pragma once

#include <fmt/format.h>
#include <sys/socket.h>

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/read_until.hpp>
#include <boost/asio/write.hpp>
#include <cstdint>
#include <cstdlib>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace llorch {

struct TestAnswer {
  int status = 0;                              // 0: the connection ended before an answer
  std::map<std::string, std::string> headers;  // names in lower case
  std::string body;
  nlohmann::json json() const { return nlohmann::json::parse(body); }
};

// Every read gives up after 20 seconds, so that a test fails rather than hangs.
class TestClient {
 public:
  explicit TestClient(uint16_t port, int receive_buffer = 0) : socket_(io_) {
    socket_.open(boost::asio::ip::tcp::v4());
    if (receive_buffer > 0) socket_.set_option(boost::asio::socket_base::receive_buffer_size(receive_buffer));
    const timeval timeout{20, 0};
    ::setsockopt(socket_.native_handle(), SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout);
    socket_.connect({boost::asio::ip::make_address("127.0.0.1"), port});
  }

  void send(std::string_view bytes) {
    boost::system::error_code ignored;  // a server that has closed shows in what is read
    boost::asio::write(socket_, boost::asio::buffer(bytes), ignored);
  }

  void request(std::string_view method, std::string_view path, std::string_view body = {},
               std::string_view headers = "Content-Type: application/json\r\n") {
    send(fmt::format("{} {} HTTP/1.1\r\nHost: localhost\r\n{}Content-Length: {}\r\n\r\n{}", method, path, headers,
                     body.size(), body));
  }

  // Status and headers. The body is read by read_answer() or by next_event().
  TestAnswer read_head() {
    TestAnswer out;
    const std::string status = line();
    if (status.size() < 12) return out;
    out.status = std::atoi(status.c_str() + 9);
    for (std::string header = line(); !header.empty(); header = line()) {
      const size_t colon = header.find(": ");
      std::string name = header.substr(0, colon);
      for (char& c : name) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
      out.headers[name] = header.substr(colon + 2);
    }
    return out;
  }

  TestAnswer read_answer() {
    TestAnswer out = read_head();
    if (out.headers.count("content-length") != 0) {
      out.body = bytes(std::stoul(out.headers["content-length"]));
    } else {
      for (std::string part = chunk(); !part.empty(); part = chunk()) out.body += part;
    }
    return out;
  }

  // The next SSE event of a chunked stream; nothing at its end, or if the connection broke.
  std::optional<nlohmann::json> next_event() {
    while (text_.find("\n\n") == std::string::npos) {
      const std::string part = chunk();
      if (part.empty()) return std::nullopt;
      text_ += part;
    }
    const size_t end = text_.find("\n\n");
    const std::string frame = text_.substr(0, end);
    text_.erase(0, end + 2);
    return nlohmann::json::parse(frame.substr(6));  // "data: "
  }

  std::vector<nlohmann::json> all_events() {
    std::vector<nlohmann::json> out;
    for (auto event = next_event(); event; event = next_event()) out.push_back(*event);
    return out;
  }

  nlohmann::json last_event() {  // null if the stream is broken before its first
    const auto events = all_events();
    return events.empty() ? nlohmann::json() : events.back();
  }

  bool ended_by_peer() {
    char byte = 0;
    boost::system::error_code error;
    return buffer_.empty() && socket_.read_some(boost::asio::buffer(&byte, 1), error) == 0 &&
           error == boost::asio::error::eof;
  }

  void close() { socket_.close(); }

 private:
  bool fill() {
    char bytes[4096];
    boost::system::error_code error;
    const size_t n = socket_.read_some(boost::asio::buffer(bytes), error);
    buffer_.append(bytes, n);
    return n > 0;
  }

  std::string line() {
    while (buffer_.find("\r\n") == std::string::npos) {
      if (!fill()) return {};
    }
    const size_t end = buffer_.find("\r\n");
    std::string out = buffer_.substr(0, end);
    buffer_.erase(0, end + 2);
    return out;
  }

  std::string bytes(size_t n) {
    while (buffer_.size() < n) {
      if (!fill()) return {};
    }
    std::string out = buffer_.substr(0, n);
    buffer_.erase(0, n);
    return out;
  }

  std::string chunk() {
    const std::string size = line();
    if (size.empty()) return {};
    std::string out = bytes(std::stoul(size, nullptr, 16));
    bytes(2);
    return out;
  }

  boost::asio::io_context io_;
  boost::asio::ip::tcp::socket socket_;
  std::string buffer_, text_;
};

inline TestAnswer ask(uint16_t port, std::string_view method, std::string_view path, std::string_view body = {},
                      std::string_view headers = "Content-Type: application/json\r\n") {
  TestClient client(port);
  client.request(method, path, body, headers);
  return client.read_answer();
}

// All events of one POST /execute.
inline std::vector<nlohmann::json> execute(uint16_t port, const nlohmann::json& body) {
  TestClient client(port);
  client.request("POST", "/execute", body.dump());
  if (client.read_head().status != 200) return {};
  return client.all_events();
}

// The last event of one POST /execute; null if there is none.
inline nlohmann::json execute_to_end(uint16_t port, const nlohmann::json& body) {
  const auto events = execute(port, body);
  return events.empty() ? nlohmann::json() : events.back();
}

inline std::string text_of(const std::vector<nlohmann::json>& events) {
  std::string out;
  for (const auto& event : events) {
    if (event["type"] == "token") out += event["t"].get<std::string>();
  }
  return out;
}

inline std::vector<int32_t> ids_of(const std::vector<nlohmann::json>& events) {
  std::vector<int32_t> out;
  for (const auto& event : events) {
    if (event["type"] == "token" && event["i"] == out.size()) out.push_back(event["id"]);
  }
  return out;
}

}  // namespace llorch
