// Normalizers: what is done to a text before it is split into words.
#pragma once

#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "text/regex.h"
#include "text/unicode.h"

namespace llorch {

class Normalizer {
 public:
  struct Prepend {  // to a text that is not empty
    std::string content;
  };
  struct Replace {
    Pattern pattern;
    std::string content;  // taken literally
  };
  struct Unicode {
    NormalForm form;
  };
  struct Lowercase {};
  struct Strip {  // white space
    bool left, right;
  };
  struct StripAccents {};
  using Step = std::variant<Prepend, Replace, Unicode, Lowercase, Strip, StripAccents>;

  explicit Normalizer(std::vector<Step> steps = {}) : steps_(std::move(steps)) {}

  // text must be valid UTF-8, and the result is. The steps in their order; none: the text itself.
  std::string apply(std::string_view text) const;

 private:
  std::vector<Step> steps_;
};

}  // namespace llorch
