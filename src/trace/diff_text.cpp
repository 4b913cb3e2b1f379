#include "trace/diff_text.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>

#include "format/printable.h"
#include "plan/plan.h"

namespace llorch {
namespace {

std::string element_text(const ElementAddress& at) {
  return fmt::format("position {}, element {}: a {} ({}), b {} ({})", at.position, at.element, at.a, bits_text(at.a),
                     at.b, bits_text(at.b));
}

std::string remarks(const StepDiff& step) {
  std::string text;
  if (step.first_nan) text += fmt::format("  NaN at {}:{}", step.first_nan->position, step.first_nan->element);
  if (step.argmax_agree) text += fmt::format("  argmax {}/{}", *step.argmax_agree, step.rows);
  return text;
}

std::string line(const StepDiff& step, size_t name_width, bool is_first) {
  std::string text = fmt::format("{} {:<{}}  {:<11}  {:>5} x {:<6} ", is_first ? '>' : ' ', printable(step.step),
                                 name_width, printable(step.verb), step.rows, step.width);
  if (step.equal) {
    text += fmt::format("{:>9}{:32}", "equal", "");
  } else {
    text += fmt::format("{:>9.3g}  {:>9.3g}  {:>9.6f}  {:>9}", step.max_abs, step.nmse, step.cosine, step.ulp_median);
    if (step.bound > 0.0) text += fmt::format("  {:>9.3g}", step.bound);
  }
  text += remarks(step);
  text.erase(text.find_last_not_of(' ') + 1);
  return text + "\n";
}

std::string agreement_text(const StepDiff& last) {
  if (!last.argmax_agree) return {};
  return fmt::format("; the largest logit is the same one in {} of {} rows", *last.argmax_agree, last.rows);
}

void join(std::string& text, const std::string& more) {
  if (!more.empty()) text += (text.empty() ? "" : ", ") + printable(more, 200);
}

}  // namespace

std::string bits_text(float value) { return fmt::format("0x{:08x}", std::bit_cast<uint32_t>(value)); }

std::string run_text(const TraceInfo& info) {
  std::string text;
  join(text, info.model);
  const size_t n = info.tokens.size();
  join(text,
       fmt::format("{} token{}: {} prefilled, {} decoded", n, n == 1 ? "" : "s", info.n_prompt, n - info.n_prompt));
  if (!info.kv_dtype.empty()) join(text, info.kv_dtype + " KV");
  return text;
}

std::string side_text(const TraceInfo& info) {
  std::string text;
  join(text, info.backend);
  join(text, info.device);
  join(text, info.build);
  join(text, info.numerics);
  return text;
}

std::string difference_text(const StepDiff& step) {
  std::string what;
  if (const auto layer = layer_of(step.step)) join(what, fmt::format("layer {}", *layer));
  join(what, step.verb);
  join(what, fmt::format("{} [{}, {}]", step.dtype, step.rows, step.width));
  const auto& at = step.bound > 0.0 ? step.largest_difference : step.first_difference;
  const std::string by = step.bound > 0.0 ? fmt::format("NMSE {:.3g}, its bound {:.3g}; the largest difference is at ",
                                                        step.nmse, step.bound)
                                          : "";
  return fmt::format("{} ({}): {}{}; {} of {} elements differ", printable(step.step), what, by,
                     at ? element_text(*at) : "no element", step.n_differ, uint64_t{step.rows} * step.width);
}

const StepDiff* closest_to_bound(const DiffReport& report) {
  const auto share = [](const StepDiff& step) { return step.bound > 0.0 ? step.nmse / step.bound : 0.0; };
  const auto most = std::max_element(report.steps.begin(), report.steps.end(),
                                     [&](const StepDiff& a, const StepDiff& b) { return share(a) < share(b); });
  return report.exact || most == report.steps.end() ? nullptr : &*most;
}

std::string verdict_text(const DiffReport& report) {
  const size_t n = report.steps.size();
  if (report.first >= 0) {
    const auto outside = std::count_if(report.steps.begin(), report.steps.end(),
                                       [](const StepDiff& step) { return !step.within_bound; });
    return fmt::format("{} of {} steps {}; the first: {}", outside, n,
                       report.exact ? "differ" : "are not within their bounds",
                       difference_text(report.steps[static_cast<size_t>(report.first)]));
  }
  if (report.exact) return fmt::format("all {} steps are equal, bit for bit", n);
  const StepDiff* closest = closest_to_bound(report);
  return fmt::format("all {} steps are within their bounds{}", n,
                     closest == nullptr
                         ? ""
                         : fmt::format("; the closest is {} at {:.2g} of its bound{}", printable(closest->step),
                                       closest->nmse / closest->bound, agreement_text(report.steps.back())));
}

std::string to_text(const DiffReport& report) {
  size_t name_width = 4;
  for (const StepDiff& step : report.steps) name_width = std::max(name_width, step.step.size());
  std::string text = fmt::format("a  {}: {}\nb  {}: {}\n   {}\n", report.name_a, side_text(report.a), report.name_b,
                                 side_text(report.b), run_text(report.a.model.empty() ? report.b : report.a));
  if (report.local) text += "   each step of a was fed the inputs of b\n";
  text += fmt::format("  {:<{}}  {:<11}  {:>5} x {:<6} {:>9}  {:>9}  {:>9}  {:>9}{}\n", "step", name_width, "verb",
                      "rows", "width", "max abs", "NMSE", "cosine", "ULP", report.exact ? "" : "      bound");
  for (size_t i = 0; i < report.steps.size(); ++i)
    text += line(report.steps[i], name_width, static_cast<int>(i) == report.first);
  for (const auto* only : {&report.only_a, &report.only_b})
    if (!only->empty())
      text += fmt::format("{} step{} only in {}, from {} on\n", only->size(), only->size() == 1 ? "" : "s",
                          only == &report.only_a ? "a" : "b", printable(only->front()));
  return text + verdict_text(report) + "\n";
}

}  // namespace llorch
