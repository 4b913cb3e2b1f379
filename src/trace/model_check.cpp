#include "trace/model_check.h"

#include <algorithm>
#include <cmath>

#include "sampling/tripwire.h"
#include "trace/examiner.h"

namespace llorch {
namespace {

Finding finding_at(const Step& step, std::string remark) {
  Finding finding;
  finding.step = step.name;
  finding.verb = verb(step.op);
  finding.remark = std::move(remark);
  return finding;
}

// The first element that is not finite. check_logits() runs over all that are in vector instructions.
std::optional<size_t> not_finite(std::span<const float> values) {
  const LogitsFault fault = check_logits(values);
  if (fault != LogitsFault::kNan && fault != LogitsFault::kInfinite) return std::nullopt;
  const auto at = std::find_if(values.begin(), values.end(), [](float x) { return !std::isfinite(x); });
  return static_cast<size_t>(at - values.begin());
}

const char* name_of(float value) { return std::isnan(value) ? "NaN" : "infinity"; }

// What the reference gives at the first position where a step is not finite.
std::optional<std::string> not_finite_text(const Plan& plan, const Recording& truth, size_t step) {
  const Recording::Rows& rows = truth.steps[step];
  const auto at = not_finite(rows.values);
  if (!at) return std::nullopt;
  const uint32_t width = plan.slot(output_slot(plan.steps[step].op)).width;
  return fmt::format("the reference gives {} at position {}, element {}", name_of(rows.values[*at]),
                     rows.positions[*at / width], *at % width);
}

}  // namespace

std::optional<Finding> find_not_finite(const Plan& plan, const WeightSource& source, const Plan& cut,
                                       const Recording& truth) {
  for (size_t i = 0; i < plan.weights.size(); ++i) {
    const Weight& weight = plan.weights[i];
    const Tensor tensor = source.open(weight);
    std::vector<float> row(static_cast<size_t>(tensor.cols()));
    for (int64_t r = 0; r < tensor.rows(); ++r) {
      read_row(tensor, r, row.data());
      const auto column = not_finite(row);
      if (!column) continue;
      source.close(tensor);
      const Step& reader = first_reader(plan, static_cast<WeightId>(i));
      std::string remark = fmt::format("{} ({}) is {} at row {}, column {} in the file", weight.name,
                                       to_string(weight.dtype), name_of(row[*column]), r, *column);
      const int step = cut.find_step(reader.name);
      const auto text = step < 0 ? std::nullopt : not_finite_text(cut, truth, static_cast<size_t>(step));
      if (text) remark += "; there " + *text;
      return finding_at(reader, std::move(remark));
    }
    source.close(tensor);
  }
  for (size_t i = 0; i < cut.steps.size(); ++i)
    if (const auto text = not_finite_text(cut, truth, i))
      return finding_at(cut.steps[i], *text + ", though all weights are finite: it overflows");
  return std::nullopt;
}

std::optional<Finding> compare_weights(const Plan& plan, const PlacedWeights& subject, const PlacedWeights& reference) {
  constexpr int64_t kRows = 61;
  for (size_t i = 0; i < plan.weights.size(); ++i) {
    const Weight& weight = plan.weights[i];
    const auto id = static_cast<WeightId>(i);
    const int64_t n = weight.shape.size() == 1 ? 1 : weight.shape[0];
    std::vector<float> got(static_cast<size_t>(weight.shape.back())), want(got.size());
    for (int64_t k = 0, step = std::max<int64_t>(1, n / kRows); k < n + step - 1; k += step) {
      const int64_t row = std::min(k, n - 1);
      subject.read_row(id, row, got.data());
      reference.read_row(id, row, want.data());
      const auto [g, w] = std::mismatch(got.begin(), got.end(), want.begin(), same_bits);
      if (g == got.end()) continue;
      return finding_at(first_reader(plan, id), fmt::format("{} ({}) row {} element {} is {}, expected {}", weight.name,
                                                            to_string(weight.dtype), row, g - got.begin(), *g, *w));
    }
  }
  return std::nullopt;
}

}  // namespace llorch
