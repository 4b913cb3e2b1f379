// The steps of a normalizer.
#include "text/normalizer.h"

namespace llorch {
namespace {

struct Apply {
  std::string_view text;

  std::string operator()(const Normalizer::Prepend& step) const {
    return text.empty() ? std::string() : step.content + std::string(text);
  }
  std::string operator()(const Normalizer::Replace& step) const { return step.pattern.replace_all(text, step.content); }
  std::string operator()(const Normalizer::Unicode& step) const { return to_normal_form(text, step.form); }
  std::string operator()(const Normalizer::Lowercase&) const { return to_lowercase(text); }
  std::string operator()(const Normalizer::Strip& step) const {
    std::string_view rest = text;
    if (step.left) rest.remove_prefix(leading_space(rest));
    if (step.right) rest.remove_suffix(trailing_space(rest));
    return std::string(rest);
  }
  std::string operator()(const Normalizer::StripAccents&) const { return without_marks(text); }
};

}  // namespace

std::string Normalizer::apply(std::string_view text) const {
  std::string result(text);
  for (const Step& step : steps_) result = std::visit(Apply{result}, step);
  return result;
}

}  // namespace llorch
