// Tokens that are recognised in a text as they stand, before it is split: special tokens and added words.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace llorch {

struct AddedToken {
  std::string content;
  int32_t id = 0;
  bool special = false;
  bool single_word = false;  // not inside of a longer word
  bool lstrip = false;       // takes the white space before it
  bool rstrip = false;       // and after it
  bool normalized = false;   // is looked for in the normalized text
};

// A part of a text: a token, or text between tokens.
struct Segment {
  std::optional<int32_t> token;
  size_t begin, end;  // bytes
};

// A set of tokens that is looked for in one pass.
class AddedTokens {
 public:
  // Loaders refuse longer contents: each place of a hostile text may cost so many steps.
  static constexpr size_t kMaxContentBytes = 1024;

  // A token without content is never found; of several with the same content the first is.
  explicit AddedTokens(std::vector<AddedToken> tokens = {});

  // Cuts a text at the tokens in it: of several at one place the longest, then on from its end.
  std::vector<Segment> split(std::string_view text) const;

 private:
  const AddedToken* longest_at(std::string_view text) const;

  std::vector<AddedToken> tokens_;                       // sorted by content
  std::array<std::pair<size_t, size_t>, 256> starts_{};  // range of the tokens that start with a byte
};

}  // namespace llorch
