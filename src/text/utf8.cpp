// Reading, checking and repairing UTF-8.
#include "text/utf8.h"

namespace llorch {
namespace {

// How many bytes follow a lead byte, and the range of the first of them (the others are 80..BF).
struct Lead {
  uint32_t following;
  unsigned char low, high;
};

Lead lead_of(unsigned char byte) {
  if (byte >= 0xC2 && byte <= 0xDF) return {1, 0x80, 0xBF};
  if (byte == 0xE0) return {2, 0xA0, 0xBF};
  if (byte == 0xED) return {2, 0x80, 0x9F};
  if (byte >= 0xE1 && byte <= 0xEF) return {2, 0x80, 0xBF};
  if (byte == 0xF0) return {3, 0x90, 0xBF};
  if (byte >= 0xF1 && byte <= 0xF3) return {3, 0x80, 0xBF};
  if (byte == 0xF4) return {3, 0x80, 0x8F};
  return {0, 0, 0};
}

}  // namespace

Utf8Read read_utf8(std::string_view text) {
  using Kind = Utf8Read::Kind;
  const auto first = static_cast<unsigned char>(text[0]);
  if (first < 0x80) return {Kind::kCharacter, 1, first};
  const Lead lead = lead_of(first);
  if (lead.following == 0) return {Kind::kInvalid, 1, 0};
  char32_t code = first & (0x3Fu >> lead.following);
  for (uint32_t i = 1; i <= lead.following; ++i) {
    if (i == text.size()) return {Kind::kIncomplete, i, 0};
    const auto byte = static_cast<unsigned char>(text[i]);
    const bool fits = i == 1 ? byte >= lead.low && byte <= lead.high : byte >= 0x80 && byte <= 0xBF;
    if (!fits) return {Kind::kInvalid, i, 0};
    code = (code << 6) | (byte & 0x3Fu);
  }
  return {Kind::kCharacter, lead.following + 1, code};
}

void append_utf8(std::string& out, char32_t code) {
  const auto put = [&out](char32_t byte) { out.push_back(static_cast<char>(static_cast<unsigned char>(byte))); };
  if (code < 0x80) {
    put(code);
  } else if (code < 0x800) {
    put(0xC0 | (code >> 6));
    put(0x80 | (code & 0x3F));
  } else if (code < 0x10000) {
    put(0xE0 | (code >> 12));
    put(0x80 | ((code >> 6) & 0x3F));
    put(0x80 | (code & 0x3F));
  } else {
    put(0xF0 | (code >> 18));
    put(0x80 | ((code >> 12) & 0x3F));
    put(0x80 | ((code >> 6) & 0x3F));
    put(0x80 | (code & 0x3F));
  }
}

bool is_valid_utf8(std::string_view text) {
  while (!text.empty()) {
    const Utf8Read read = read_utf8(text);
    if (read.kind != Utf8Read::Kind::kCharacter) return false;
    text.remove_prefix(read.bytes);
  }
  return true;
}

void Utf8Repair::push(std::string_view bytes, std::string& out) {
  std::string joined;
  if (!held_.empty()) {
    joined = std::move(held_);
    held_.clear();
    joined.append(bytes);
    bytes = joined;
  }
  while (!bytes.empty()) {
    const Utf8Read read = read_utf8(bytes);
    switch (read.kind) {
      case Utf8Read::Kind::kCharacter:
        out.append(bytes.substr(0, read.bytes));
        break;
      case Utf8Read::Kind::kInvalid:
        out.append(kReplacementCharacter);
        break;
      case Utf8Read::Kind::kIncomplete:
        held_ = bytes;
        return;
    }
    bytes.remove_prefix(read.bytes);
  }
}

void Utf8Repair::finish(std::string& out) {
  if (!held_.empty()) out.append(kReplacementCharacter);
  held_.clear();
}

std::string repair_utf8(std::string_view bytes) {
  std::string out;
  out.reserve(bytes.size());
  Utf8Repair repair;
  repair.push(bytes, out);
  repair.finish(out);
  return out;
}

}  // namespace llorch
