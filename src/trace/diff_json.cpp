#include "trace/diff_json.h"

#include <cmath>

#include "plan/plan.h"
#include "trace/diff_text.h"

namespace llorch {
namespace {

using Json = nlohmann::ordered_json;

// JSON has no infinity and no NaN.
Json number(double value) { return std::isfinite(value) ? Json(value) : Json(nullptr); }

Json side(const std::string& name, const TraceInfo& info) {
  return {{"name", name},
          {"model", info.model},
          {"model_hash", info.model_hash},
          {"plan_hash", info.plan_hash},
          {"backend", info.backend},
          {"device", info.device},
          {"numerics", info.numerics},
          {"kv_dtype", info.kv_dtype},
          {"build", info.build}};
}

Json address(const std::optional<ElementAddress>& at) {
  if (!at) return nullptr;
  return {{"position", at->position}, {"element", at->element},     {"a", number(at->a)},
          {"b", number(at->b)},       {"a_bits", bits_text(at->a)}, {"b_bits", bits_text(at->b)}};
}

}  // namespace

Json to_json(const StepDiff& step) {
  const auto layer = layer_of(step.step);
  Json nmse_by_row = Json::array();
  for (const double nmse : step.nmse_by_row) nmse_by_row.push_back(number(nmse));
  return {{"step", step.step},
          {"verb", step.verb},
          {"layer", layer ? Json(*layer) : Json(nullptr)},
          {"dtype", step.dtype},
          {"shape", {step.rows, step.width}},
          {"first_position", step.first_position},
          {"equal", step.equal},
          {"within_bound", step.within_bound},
          {"bound", step.bound},
          {"differ", step.n_differ},
          {"max_abs", number(step.max_abs)},
          {"nmse", number(step.nmse)},
          {"nmse_by_row", nmse_by_row},
          {"cosine", step.cosine},
          {"ulp_median", step.ulp_median},
          {"argmax_agree", step.argmax_agree ? Json(*step.argmax_agree) : Json(nullptr)},
          {"first_difference", address(step.first_difference)},
          {"largest_difference", address(step.largest_difference)},
          {"first_nan", address(step.first_nan)}};
}

Json to_json(const DiffReport& report) {
  Json steps = Json::array();
  for (const StepDiff& step : report.steps) steps.push_back(to_json(step));
  const StepDiff* closest = closest_to_bound(report);
  return {{"comparable", true},
          {"equal", report.same()},
          {"exact", report.exact},
          {"local", report.local},
          {"verdict", verdict_text(report)},
          {"first", report.same() ? Json(nullptr) : Json(report.steps[static_cast<size_t>(report.first)].step)},
          {"closest_to_bound", closest == nullptr
                                   ? Json(nullptr)
                                   : Json{{"step", closest->step}, {"share", number(closest->nmse / closest->bound)}}},
          {"a", side(report.name_a, report.a)},
          {"b", side(report.name_b, report.b)},
          {"tokens", report.a.tokens},
          {"n_prompt", report.a.n_prompt},
          {"steps", std::move(steps)},
          {"only_in_a", report.only_a},
          {"only_in_b", report.only_b}};
}

Json to_json(const std::vector<Mismatch>& mismatches) {
  Json reasons = Json::array();
  for (const Mismatch& one : mismatches) reasons.push_back({{"field", one.field}, {"a", one.a}, {"b", one.b}});
  return {{"comparable", false}, {"mismatches", std::move(reasons)}};
}

}  // namespace llorch
