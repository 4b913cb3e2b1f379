// UTF-8 as the tokenizers need it: reading characters, checking, and replacing what is invalid by U+FFFD.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace llorch {

inline constexpr std::string_view kReplacementCharacter = "\xEF\xBF\xBD";  // U+FFFD

// What stands at the start of a text: a whole character, the maximal invalid subpart (Unicode 3.9, table 3-7), or a
// character whose end is missing.
struct Utf8Read {
  enum class Kind { kCharacter, kInvalid, kIncomplete };
  Kind kind;
  uint32_t bytes;  // that belong to it, 1..4
  char32_t code;   // of a character, else 0
};

// Reads what starts at text[0]; text must not be empty.
Utf8Read read_utf8(std::string_view text);

// Appends one character; code must be a Unicode scalar value.
void append_utf8(std::string& out, char32_t code);

bool is_valid_utf8(std::string_view text);

// Bytes of the character whose first byte this is, in valid UTF-8.
inline uint32_t utf8_length(char first) {
  const auto byte = static_cast<unsigned char>(first);
  return byte < 0x80 ? 1u : byte < 0xE0 ? 2u : byte < 0xF0 ? 3u : 4u;
}

// Turns a stream of bytes into valid UTF-8: each maximal invalid subpart becomes U+FFFD. Holds back at most 3 bytes,
// so that the result does not depend on how the stream was cut.
class Utf8Repair {
 public:
  void push(std::string_view bytes, std::string& out);
  void finish(std::string& out);  // an unfinished character becomes one U+FFFD

 private:
  std::string held_;
};

// The whole text repaired.
std::string repair_utf8(std::string_view bytes);

}  // namespace llorch
