// Properties of Unicode characters and transformations of whole texts, over utf8proc. Texts must be valid UTF-8.
#pragma once

#include <string>
#include <string_view>

namespace llorch {

enum class NormalForm { kNfc, kNfd, kNfkc, kNfkd };

std::string to_normal_form(std::string_view text, NormalForm form);
std::string to_lowercase(std::string_view text);   // character by character, as Rust's char::to_lowercase
std::string without_marks(std::string_view text);  // drops characters of category M

bool is_white_space(char32_t code);     // Unicode's White_Space
bool is_word_character(char32_t code);  // \w of Rust's regex crate: alphabetic, mark, digit, connector, joiner

// Bytes of white space at the start, and at the end.
size_t leading_space(std::string_view text);
size_t trailing_space(std::string_view text);

// The last character of a text that is not empty.
char32_t last_character(std::string_view text);

}  // namespace llorch
