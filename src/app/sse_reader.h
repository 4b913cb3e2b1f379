// Server-sent events as a client reads them.
#pragma once

#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace llorch {

// Takes bytes as they arrive and gives the JSON of each complete `data:` frame. Throws Error for one that is not JSON.
class SseReader {
 public:
  explicit SseReader(std::function<void(const nlohmann::json&)> on_event) : on_event_(std::move(on_event)) {}
  void push(std::string_view bytes);

 private:
  std::function<void(const nlohmann::json&)> on_event_;
  std::string line_, data_;
};

}  // namespace llorch
