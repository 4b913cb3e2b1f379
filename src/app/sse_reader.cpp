// Lines, frames, JSON.
#include "app/sse_reader.h"

#include <utility>

#include "base/error.h"

namespace llorch {

void SseReader::push(std::string_view bytes) {
  for (const char c : bytes) {
    if (c != '\n') {
      line_ += c;
      continue;
    }
    std::string line = std::exchange(line_, {});
    if (!line.empty() && line.back() == '\r') line.pop_back();
    if (line.rfind("data:", 0) == 0) {
      data_ += line.substr(line.size() > 5 && line[5] == ' ' ? 6 : 5);
    } else if (line.empty() && !data_.empty()) {
      const std::string data = std::exchange(data_, {});
      const auto event = nlohmann::json::parse(data, nullptr, false);
      if (!event.is_object()) fail("an event is not a JSON object: {}", data.substr(0, 200));
      on_event_(event);
    }
  }
}

}  // namespace llorch
