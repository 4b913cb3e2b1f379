// JSON bodies from strangers: parsed strictly, with messages that repeat nothing of them.
#pragma once

#include <nlohmann/json.hpp>
#include <string_view>

namespace llorch {

// Nesting allowed in a body; ours need two.
inline constexpr int kMaxJsonDepth = 16;

// Throws Error if the text is not one JSON value in valid UTF-8, is nested deeper than kMaxJsonDepth, or names a key
// twice in one object. The parser's own message is dropped, since it quotes the text.
nlohmann::json parse_strict_json(std::string_view text);

}  // namespace llorch
