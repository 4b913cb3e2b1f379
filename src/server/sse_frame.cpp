// JSON strings are escaped as nlohmann does it: what must be, and nothing else.
#include "server/sse_frame.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>

namespace llorch {
namespace {

bool is_plain(char c) { return static_cast<unsigned char>(c) >= 0x20 && c != '"' && c != '\\'; }

void append_escaped(std::string& out, char c) {
  constexpr std::string_view kShort = "\"\\\b\f\n\r\t", kLetters = "\"\\bfnrt";
  if (const size_t at = kShort.find(c); at != std::string_view::npos) {
    out += '\\';
    out += kLetters[at];
  } else {
    fmt::format_to(std::back_inserter(out), "\\u{:04x}", static_cast<unsigned char>(c));
  }
}

}  // namespace

std::string sse_frame(const nlohmann::ordered_json& event) {
  return "data: " + event.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n\n";
}

void append_token_frame(std::string& out, std::string_view text, uint32_t index, int32_t id) {
  out += R"(data: {"type":"token","t":")";
  while (!text.empty()) {
    const auto odd = std::find_if_not(text.begin(), text.end(), is_plain);
    out.append(text.begin(), odd);
    if (odd == text.end()) break;
    append_escaped(out, *odd);
    text.remove_prefix(static_cast<size_t>(odd - text.begin()) + 1);
  }
  out += R"(","i":)";
  out += fmt::format_int(index).c_str();
  out += R"(,"id":)";
  out += fmt::format_int(id).c_str();
  out += "}\n\n";
}

}  // namespace llorch
