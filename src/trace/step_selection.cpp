#include "trace/step_selection.h"

#include <algorithm>
#include <charconv>
#include <string_view>

#include "base/error.h"

namespace llorch {
namespace {

// Greedy matching with one place to go back to: the last star.
bool fits(std::string_view text, std::string_view pattern) {
  size_t t = 0, p = 0, star = std::string_view::npos, star_text = 0;
  while (t < text.size()) {
    if (p < pattern.size() && pattern[p] == '*') {
      star = p++;
      star_text = t;
    } else if (p < pattern.size() && pattern[p] == text[t]) {
      ++p;
      ++t;
    } else if (star != std::string_view::npos) {
      p = star + 1;
      t = ++star_text;
    } else {
      return false;
    }
  }
  return pattern.find_first_not_of('*', p) == std::string_view::npos;
}

std::optional<uint32_t> number(std::string_view text) {
  uint32_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (text.empty() || error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

}  // namespace

LayerRange parse_layers(const std::string& text) {
  const size_t dots = text.find("..");
  const auto first = number(std::string_view(text).substr(0, dots));
  const auto last = dots == std::string::npos ? first : number(std::string_view(text).substr(dots + 2));
  if (!first || !last || *first > *last) fail("layers: expected A..B or A with A <= B, got \"{}\"", text);
  return {*first, *last};
}

StepSet select_steps(const Plan& plan, std::span<const std::string> patterns, const std::optional<LayerRange>& layers) {
  StepSet steps(plan.steps.size(), patterns.empty());
  for (const std::string& pattern : patterns) {
    bool any = false;
    for (size_t i = 0; i < steps.size(); ++i) {
      if (pattern != "all" && !fits(plan.steps[i].name, pattern)) continue;
      steps[i] = any = true;
    }
    if (!any) fail("steps: no step of the plan fits \"{}\" (llorch plan lists them)", pattern);
  }
  if (!layers) return steps;
  for (size_t i = 0; i < steps.size(); ++i) {
    const auto layer = layer_of(plan.steps[i].name);
    if (!layer || *layer < layers->first || *layer > layers->last) steps[i] = false;
  }
  if (std::find(steps.begin(), steps.end(), true) == steps.end())
    fail("layers: {}..{} leave no step; the plan has {} layers", layers->first, layers->last, plan.n_layers);
  return steps;
}

}  // namespace llorch
