// Pre-tokenizers: how a text is cut into words, which byte pair encoding then treats one by one.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "text/regex.h"

namespace llorch {

class PreTokenizer {
 public:
  // What becomes of a match of a splitting pattern.
  enum class Behavior { kRemoved, kIsolated, kMergedWithPrevious, kMergedWithNext, kContiguous };
  enum class PrependScheme { kAlways, kFirst, kNever };

  struct Split {
    Pattern pattern;
    Behavior behavior;
    bool invert;  // what does not match is what separates
  };
  struct ByteLevel {  // optionally a space in front, optionally words by `words`, then bytes as characters
    bool add_prefix_space;
    std::optional<Pattern> words;
  };
  struct Metaspace {
    std::string replacement;  // one character, for spaces
    PrependScheme prepend;
    bool split;  // in front of each replacement
  };
  using Step = std::variant<Split, ByteLevel, Metaspace>;
  using Sink = std::function<void(std::string_view word)>;

  explicit PreTokenizer(std::vector<Step> steps = {}) : steps_(std::move(steps)) {}

  // Hands over the words from left to right, none empty; each view lives during its call only. text must be valid
  // UTF-8. at_start: nothing of the whole text stands before it.
  void split(std::string_view text, bool at_start, const Sink& sink) const { run(0, text, at_start, sink); }

  // ByteLevel's own expression for words (GPT-2).
  static constexpr std::string_view kGpt2Words =
      R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

 private:
  // Cuts a text by a pattern. Some of the parts may be empty.
  static std::vector<Span> cut(std::string_view text, const Pattern& pattern, Behavior behavior, bool invert);
  void run(size_t step, std::string_view text, bool at_start, const Sink& sink) const;
  std::vector<Step> steps_;
};

}  // namespace llorch
