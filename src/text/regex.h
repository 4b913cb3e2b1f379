// Regular expressions of tokenizers over PCRE2, and Pattern, which is one of them or a plain string.
//
// Patterns come from files and are written for Oniguruma (Ruby syntax), which Hugging Face's tokenizers use. Where the
// two dialects would match differently the pattern is rewritten or refused, never silently misread.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

struct pcre2_real_code_8;

namespace llorch {

// Bytes [begin, end) of a text.
struct Span {
  size_t begin, end;
  friend bool operator==(const Span&, const Span&) = default;
};

// A compiled expression; immutable, any number of threads may match with it. Copies share the compiled code.
class Regex {
 public:
  // where names the file and field of the pattern in errors. Throws Error if the pattern does not compile.
  Regex(std::string_view pattern, const std::string& where);

  // All matches from left to right, none overlapping; an empty match never touches the end of the one before it.
  // text must be valid UTF-8. Throws Error when a pattern needs more than its match limits.
  std::vector<Span> find_all(std::string_view text) const;

 private:
  std::string where_;
  std::shared_ptr<pcre2_real_code_8> code_;
};

// A string or a regular expression, as `{"String": ...}` and `{"Regex": ...}` in tokenizer.json.
class Pattern {
 public:
  explicit Pattern(std::string literal) : pattern_(std::move(literal)) {}
  explicit Pattern(Regex regex) : pattern_(std::move(regex)) {}

  std::vector<Span> find_all(std::string_view text) const;  // an empty string matches nowhere
  // Throws Error if the result would exceed 64 MiB: a hostile file could blow texts up.
  std::string replace_all(std::string_view text, std::string_view content) const;

 private:
  std::variant<std::string, Regex> pattern_;
};

}  // namespace llorch
