// The table of the byte alphabet: printable Latin-1 characters stand for themselves, the other 68 bytes for U+0100 on.
#include "text/byte_level.h"

#include <array>

#include "text/utf8.h"

namespace llorch {
namespace {

constexpr size_t kAlphabetEnd = 0x144;  // the highest character of the alphabet is U+0143

struct Alphabet {
  std::array<char32_t, 256> of_byte{};
  std::array<int, kAlphabetEnd> to_byte{};  // -1: not of the alphabet
};

constexpr Alphabet make_alphabet() {
  Alphabet alphabet;
  for (int& byte : alphabet.to_byte) byte = -1;
  char32_t next = 0x100;
  for (int byte = 0; byte < 256; ++byte) {
    const bool printable = (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte != 0xAD);
    const char32_t code = printable ? static_cast<char32_t>(byte) : next++;
    alphabet.of_byte[static_cast<size_t>(byte)] = code;
    alphabet.to_byte[code] = byte;
  }
  return alphabet;
}

constexpr Alphabet kAlphabet = make_alphabet();

}  // namespace

std::string to_byte_alphabet(std::string_view bytes) {
  std::string out;
  out.reserve(bytes.size() + bytes.size() / 4);
  for (const char byte : bytes) append_utf8(out, kAlphabet.of_byte[static_cast<unsigned char>(byte)]);
  return out;
}

std::optional<std::string> from_byte_alphabet(std::string_view token) {
  std::string out;
  out.reserve(token.size());
  while (!token.empty()) {
    const Utf8Read read = read_utf8(token);
    if (read.code >= kAlphabetEnd || kAlphabet.to_byte[read.code] < 0) return std::nullopt;
    out.push_back(static_cast<char>(kAlphabet.to_byte[read.code]));
    token.remove_prefix(read.bytes);
  }
  return out;
}

}  // namespace llorch
