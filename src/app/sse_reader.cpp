// Lines, frames, JSON.
#include "app/sse_reader.h"

#include <charconv>

#include "base/error.h"

namespace llorch {
namespace {

constexpr size_t kMaxFrameBytes = 1 << 20;

// Takes `text` off the end of `from`.
bool take_off(std::string_view& from, std::string_view text) {
  if (from.size() < text.size() || from.substr(from.size() - text.size()) != text) return false;
  from.remove_suffix(text.size());
  return true;
}

// Takes a whole number off the end of `from`.
template <typename Integer>
bool take_number(std::string_view& from, Integer& number) {
  const size_t before = from.find_last_not_of("-0123456789") + 1;
  const char* end = from.data() + from.size();
  const auto [stopped, error] = std::from_chars(from.data() + before, end, number);
  from = from.substr(0, before);
  return error == std::errc() && stopped == end;
}

}  // namespace

void SseReader::push(std::string_view bytes) {
  while (!bytes.empty()) {
    const size_t end = bytes.find('\n');
    if (line_.size() + data_.size() + std::min(end, bytes.size()) > kMaxFrameBytes) {
      fail("a server-sent event has more than {} bytes", kMaxFrameBytes);
    }
    if (end == std::string_view::npos) {
      line_ += bytes;
      return;
    }
    if (line_.empty()) {
      take_line(bytes.substr(0, end));
    } else {
      line_ += bytes.substr(0, end);
      take_line(line_);
      line_.clear();
    }
    bytes.remove_prefix(end + 1);
  }
}

void SseReader::take_line(std::string_view line) {
  if (!line.empty() && line.back() == '\r') line.remove_suffix(1);
  if (line.substr(0, 5) == "data:") {
    if (!data_.empty()) data_ += '\n';
    data_ += line.substr(line.size() > 5 && line[5] == ' ' ? 6 : 5);
  } else if (line.empty() && !data_.empty()) {
    on_data_(data_);
    data_.clear();
  }
}

nlohmann::json parse_event(std::string_view data) {
  auto event = nlohmann::json::parse(data, nullptr, false);
  if (!event.is_object()) fail("an event is not a JSON object: {}", data.substr(0, 200));
  return event;
}

// From the end: what is asked for stands there, and a text cannot look like it, since its quotes have a backslash.
std::optional<TokenFrame> read_token_frame(std::string_view data) {
  constexpr std::string_view kBegin = R"({"type":"token","t":")";
  if (data.substr(0, kBegin.size()) != kBegin) return std::nullopt;
  TokenFrame frame;
  if (!take_off(data, "}") || !take_number(data, frame.id) || !take_off(data, ",\"id\":")) return std::nullopt;
  if (!take_number(data, frame.index) || !take_off(data, "\",\"i\":") || data.size() < kBegin.size()) {
    return std::nullopt;
  }
  return frame;
}

}  // namespace llorch
