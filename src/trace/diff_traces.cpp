#include "trace/diff_traces.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/error.h"
#include "format/printable.h"
#include "trace/bounds.h"
#include "trace/diff.h"

namespace llorch {
namespace {

class Mismatches {
 public:
  void compare(const char* field, const std::string& a, const std::string& b) {
    if (a != b && !a.empty() && !b.empty()) add(field, printable(a), printable(b));
  }
  void add(std::string field, std::string a, std::string b) {
    all_.push_back({std::move(field), std::move(a), std::move(b)});
  }
  std::vector<Mismatch> take() && { return std::move(all_); }

 private:
  std::vector<Mismatch> all_;
};

std::string model_text(const TraceInfo& info) {
  if (info.model_hash.empty() || info.model.empty()) return info.model_hash;
  return fmt::format("{} ({})", info.model_hash, info.model);
}

// The tokens around the first one that differs.
std::string tokens_text(const std::vector<int32_t>& tokens, size_t differs) {
  if (differs >= tokens.size()) return fmt::format("{} tokens", tokens.size());
  return fmt::format("{} at position {} of {}", tokens[differs], differs, tokens.size());
}

std::string shape_text(const TracedRows& rows) { return fmt::format("[{}, {}]", rows.positions.size(), rows.width); }

bool is_exact(const TraceInfo& info) { return info.numerics == "exact"; }
bool is_outside(const TraceInfo& info) { return info.numerics == "outside"; }

// What is said of a step: by an exact side, if there is one, else by either.
TracedStep said_of(const std::string& step, const TraceInfo& a, const TraceInfo& b) {
  for (const TraceInfo* info : {is_exact(a) ? &a : &b, is_exact(a) ? &b : &a})
    for (const TracedStep& one : info->steps)
      if (one.name == step) return one;
  return {step, {}, {}, {}};
}

}  // namespace

std::vector<Mismatch> mismatches(const TraceFile& a, const TraceFile& b) {
  const TraceInfo &of_a = a.info(), &of_b = b.info();
  Mismatches found;
  if (of_a.model_hash != of_b.model_hash) found.compare("model_hash", model_text(of_a), model_text(of_b));
  found.compare("plan_hash", of_a.plan_hash, of_b.plan_hash);
  if (!is_outside(of_a) && !is_outside(of_b)) found.compare("kv_dtype", of_a.kv_dtype, of_b.kv_dtype);
  if (!is_exact(of_a) && !is_exact(of_b))
    found.add("numerics, of which one must be exact", of_a.numerics, of_b.numerics);
  if (of_a.tokens != of_b.tokens) {
    const auto [at_a, at_b] =
        std::mismatch(of_a.tokens.begin(), of_a.tokens.end(), of_b.tokens.begin(), of_b.tokens.end());
    found.add("tokens", tokens_text(of_a.tokens, static_cast<size_t>(at_a - of_a.tokens.begin())),
              tokens_text(of_b.tokens, static_cast<size_t>(at_b - of_b.tokens.begin())));
    return std::move(found).take();  // shapes follow from tokens
  }
  if (of_a.n_prompt != of_b.n_prompt)
    found.add("n_prompt", std::to_string(of_a.n_prompt), std::to_string(of_b.n_prompt));
  bool any = false;
  for (const TracedRows& rows : a.steps()) {
    const TracedRows* other = b.find(rows.step);
    any = any || other != nullptr;
    if (other != nullptr && (rows.width != other->width || rows.positions != other->positions))
      found.add("step " + printable(rows.step), shape_text(rows), shape_text(*other));
  }
  if (!any)
    found.add("steps", fmt::format("{} from {}", a.steps().size(), printable(a.steps().front().step)),
              fmt::format("{} from {}, none of them the same", b.steps().size(), printable(b.steps().front().step)));
  return std::move(found).take();
}

DiffReport diff_traces(const TraceFile& a, const TraceFile& b) {
  LLORCH_CHECK(mismatches(a, b).empty(), "{} and {} cannot be compared", a.path().string(), b.path().string());
  DiffReport report;
  report.name_a = a.path().string();
  report.name_b = b.path().string();
  report.a = a.info();
  report.b = b.info();
  report.exact = is_exact(a.info()) && is_exact(b.info());
  const BoundConditions conditions =
      is_exact(a.info()) ? bound_conditions(a.info(), b.info()) : bound_conditions(b.info(), a.info());
  const bool a_says_order = !a.info().steps.empty() || b.info().steps.empty();
  const TraceFile &first = a_says_order ? a : b, &other = a_says_order ? b : a;
  for (const TracedRows& rows : first.steps()) {
    if (other.find(rows.step) == nullptr) {
      (a_says_order ? report.only_a : report.only_b).push_back(rows.step);
      continue;
    }
    const TracedRows &of_a = *a.find(rows.step), &of_b = *b.find(rows.step);
    const TracedStep what = said_of(rows.step, a.info(), b.info());
    report.steps.push_back(diff_step({.what = what,
                                      .positions = rows.positions,
                                      .width = rows.width,
                                      .a = of_a.values,
                                      .b = of_b.values,
                                      .is_logits = rows.step == "logits",
                                      .bound = report.exact ? 0.0 : run_bound(what, conditions)}));
    a.release(of_a);
    b.release(of_b);
  }
  for (const TracedRows& rows : other.steps())
    if (first.find(rows.step) == nullptr) (a_says_order ? report.only_b : report.only_a).push_back(rows.step);
  report.first = first_outside(report.steps);
  return report;
}

}  // namespace llorch
