#include "trace/diff.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "base/error.h"

namespace llorch {
namespace {

bool same(float a, float b) {
  return std::bit_cast<uint32_t>(a) == std::bit_cast<uint32_t>(b) || (std::isnan(a) && std::isnan(b));
}

// Floats in order as integers: neighbours differ by one, -0 and +0 too.
int64_t ordinal(float x) {
  const auto bits = std::bit_cast<uint32_t>(x);
  const auto magnitude = static_cast<int64_t>(bits & 0x7fffffffu);
  return bits >> 31 == 0 ? magnitude : -magnitude - 1;
}

// |a - b|; infinite where only one of them is a finite number, or they are different infinities.
double distance(float a, float b) {
  if (same(a, b)) return 0.0;
  const double d = std::abs(double{a} - double{b});
  return std::isfinite(d) ? d : std::numeric_limits<double>::infinity();
}

double share(double error, double whole) {
  if (error == 0.0) return 0.0;
  return whole == 0.0 ? std::numeric_limits<double>::infinity() : error / whole;
}

// Sums over some elements; a row's are added to the step's.
struct Sums {
  double error = 0.0, aa = 0.0, bb = 0.0, ab = 0.0;

  void add(float a, float b) {
    const double d = distance(a, b);
    error += d * d;
    if (!std::isfinite(a) || !std::isfinite(b)) return;
    aa += double{a} * a;
    bb += double{b} * b;
    ab += double{a} * b;
  }
  void add(const Sums& other) {
    error += other.error;
    aa += other.aa;
    bb += other.bb;
    ab += other.ab;
  }
  double nmse() const { return share(error, bb); }
  double cosine() const {
    if (aa == 0.0 && bb == 0.0) return 1.0;
    return aa == 0.0 || bb == 0.0 ? 0.0 : std::clamp(ab / std::sqrt(aa) / std::sqrt(bb), -1.0, 1.0);
  }
};

uint64_t median(std::vector<uint32_t>& values) {
  if (values.empty()) return 0;
  const auto middle = values.begin() + static_cast<ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

// The lowest index of the largest element. A NaN is never the largest.
size_t argmax(std::span<const float> row) {
  return static_cast<size_t>(
      std::max_element(row.begin(), row.end(),
                       [](float a, float b) { return a < b || (std::isnan(a) && !std::isnan(b)); }) -
      row.begin());
}

uint32_t argmax_agreement(const StepOutputs& o) {
  uint32_t agree = 0;
  for (size_t at = 0; at < o.a.size(); at += o.width)
    if (argmax(o.a.subspan(at, o.width)) == argmax(o.b.subspan(at, o.width))) ++agree;
  return agree;
}

}  // namespace

StepDiff diff_step(const StepOutputs& o) {
  LLORCH_CHECK(o.a.size() == o.b.size() && o.a.size() == o.positions.size() * o.width,
               "{}: {} and {} values of [{}, {}]", o.what.name, o.a.size(), o.b.size(), o.positions.size(), o.width);
  StepDiff diff;
  diff.step = o.what.name;
  diff.verb = o.what.verb;
  diff.dtype = o.what.dtype;
  diff.text = o.what.text;
  diff.first_position = o.positions.empty() ? 0 : o.positions.front();
  diff.rows = static_cast<uint32_t>(o.positions.size());
  diff.width = o.width;
  diff.bound = o.bound;
  Sums all;
  std::vector<uint32_t> ulps;
  for (uint32_t r = 0; r < diff.rows; ++r) {
    Sums row;
    for (uint32_t i = 0; i < o.width; ++i) {
      const float a = o.a[size_t{r} * o.width + i], b = o.b[size_t{r} * o.width + i];
      row.add(a, b);
      if (!diff.first_nan && (std::isnan(a) || std::isnan(b))) diff.first_nan = {o.positions[r], i, a, b};
      if (same(a, b)) continue;
      ++diff.n_differ;
      if (!diff.first_difference) diff.first_difference = {o.positions[r], i, a, b};
      if (!diff.largest_difference || distance(a, b) > diff.max_abs) {
        diff.largest_difference = {o.positions[r], i, a, b};
        diff.max_abs = distance(a, b);
      }
      if (!std::isnan(a) && !std::isnan(b)) ulps.push_back(static_cast<uint32_t>(std::abs(ordinal(a) - ordinal(b))));
    }
    diff.nmse_by_row.push_back(row.nmse());
    all.add(row);
  }
  diff.nmse = all.nmse();
  diff.cosine = all.cosine();
  diff.ulp_median = median(ulps);
  diff.equal = !diff.first_difference;
  diff.within_bound = diff.equal || (o.bound > 0.0 && diff.nmse <= o.bound);
  if (o.is_logits) diff.argmax_agree = argmax_agreement(o);
  return diff;
}

std::vector<StepDiff> diff_recordings(const Plan& plan, const Recording& a, const Recording& b) {
  std::vector<StepDiff> diffs;
  for (size_t i = 0; i < plan.steps.size(); ++i) {
    const Recording::Rows &of_a = a.steps[i], &of_b = b.steps[i];
    if (of_a.positions.empty() || of_b.positions.empty()) continue;
    const Step& step = plan.steps[i];
    LLORCH_CHECK(of_a.positions == of_b.positions, "{}: the recordings are of other positions", step.name);
    diffs.push_back(diff_step({.what = traced_step(plan, i),
                               .positions = of_a.positions,
                               .width = plan.slot(output_slot(step.op)).width,
                               .a = of_a.values,
                               .b = of_b.values,
                               .is_logits = i + 1 == plan.steps.size()}));
  }
  return diffs;
}

int first_outside(std::span<const StepDiff> steps) {
  const auto first = std::find_if(steps.begin(), steps.end(), [](const StepDiff& d) { return !d.within_bound; });
  return first == steps.end() ? -1 : static_cast<int>(first - steps.begin());
}

}  // namespace llorch
