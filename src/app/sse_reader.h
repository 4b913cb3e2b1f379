// Server-sent events as a client reads them.
#pragma once

#include <cstdint>
#include <functional>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>

namespace llorch {

// Takes bytes as they arrive and gives the data of each complete frame; a view that lives until on_data returns. Throws
// Error for a frame of more than a mebibyte.
class SseReader {
 public:
  explicit SseReader(std::function<void(std::string_view)> on_data) : on_data_(std::move(on_data)) {}
  void push(std::string_view bytes);

 private:
  void take_line(std::string_view line);

  std::function<void(std::string_view)> on_data_;
  std::string line_;  // begun, and not ended yet
  std::string data_;  // of the frame's lines so far
};

// The event of a frame. Throws Error if it is not a JSON object.
nlohmann::json parse_event(std::string_view data);

struct TokenFrame {
  uint32_t index = 0;
  int32_t id = 0;
};

// A token event, if it is written as llorch writes it: without a parser, because there are many. Nothing says only that
// it may be any event: ask parse_event().
std::optional<TokenFrame> read_token_frame(std::string_view data);

}  // namespace llorch
