// Text from files made fit for messages and terminals.
#pragma once

#include <string>
#include <string_view>

namespace llorch {

// Printable ASCII as it is, every other byte as \xNN, at most `limit` bytes of the text (then "...").
std::string printable(std::string_view text, size_t limit = 100);

}  // namespace llorch
