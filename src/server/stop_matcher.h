// Finds stop strings in text that arrives in pieces.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace llorch {

// Text that may be the beginning of a stop string is held back (at most one byte less than the longest). What comes out
// and what matches depends on the whole text alone, not on how it is cut: the match is the stop string that is complete
// first, the longest of those that end at the same byte. Pieces must be whole UTF-8 characters; so is what comes out.
class StopMatcher {
 public:
  explicit StopMatcher(std::vector<std::string> stops) : stops_(std::move(stops)) {}

  // Text that is now certain to stand before any match. Nothing after a match.
  std::string push(std::string_view text);

  // The text is at its end: what was held back.
  std::string flush();

  const std::optional<std::string>& matched() const { return matched_; }

 private:
  bool find_match();
  size_t held_bytes() const;

  std::vector<std::string> stops_;
  std::string text_;  // held back
  std::optional<std::string> matched_;
};

}  // namespace llorch
