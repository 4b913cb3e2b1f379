// The alphabet of byte-level vocabularies (GPT-2): each byte stands as one printable character.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace llorch {

// Bytes as characters of the alphabet: " a" -> "Ġa".
std::string to_byte_alphabet(std::string_view bytes);

// The bytes of a token; nothing if one of its characters is not of the alphabet. token must be valid UTF-8.
std::optional<std::string> from_byte_alphabet(std::string_view token);

}  // namespace llorch
