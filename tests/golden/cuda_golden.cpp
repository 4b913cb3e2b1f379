// CUDA gives the bits of the CPU, and in numeric mode fast stays within its bounds of what transformers said.
#include <limits>

#include "backend/cpu/cpu_backend.h"
#include "backends_under_test.h"
#include "golden.h"
#include "golden_under_test.h"
#include "trace/bounds.h"

namespace llorch::test {

Twin make_twin() { return {make_cpu_backend({.threads = 2, .isa = ""}), std::numeric_limits<size_t>::max()}; }

namespace {

constexpr size_t kMostExactRows = 8;  // docs/numerics.md
// A greedy token is compared if its margin is so many times the error of a logit at the bound: the errors of two logits
// differ by 1.4 of it.
constexpr double kErrorsOfMargin = 4;

// NMSE of logits in a run whose side in float32 rounds no keys and values.
double bound_of_logits(const Plan& plan, DType kv, size_t n_positions) {
  TraceInfo outside, fast;
  outside.kv_dtype = "f32";
  fast.kv_dtype = to_string(kv);
  fast.numerics = "fast";
  outside.tokens.resize(n_positions);
  for (size_t i = 0; i < plan.steps.size(); ++i) outside.steps.push_back(traced_step(plan, i));
  return run_bound(outside.steps.back(), bound_conditions(outside, fast));
}

// Of the listed logits: mean squares of the difference and of what was expected.
struct MeanSquares {
  double error = 0, wanted = 0;
};
MeanSquares mean_squares(const std::vector<float>& got, const Case& c) {
  const auto n = static_cast<double>(c.logits.size());
  MeanSquares m;
  for (size_t i = 0; i < c.logits.size(); ++i) {
    m.error += std::pow(double{got[c.logit_ids[i]]} - c.logits[i], 2) / n;
    m.wanted += std::pow(c.logits[i], 2) / n;
  }
  return m;
}

TEST_P(GoldenTest, FastStaysWithinItsBoundOfTransformers) {
  LLORCH_SKIP_WITHOUT_BACKEND();
  const auto backend = one_backend();
  const Subject subject(path_);
  const Placed placed(*backend, subject, GetParam().kv, Numerics::kFast);
  for (Case& c : cases_run_here(subject.plan())) {
    if (c.prompt.size() <= kMostExactRows) continue;
    SCOPED_TRACE(c.name);
    const double bound = bound_of_logits(subject.plan(), GetParam().kv, c.prompt.size());
    double wanted = 0;
    for (const double logit : c.logits) wanted += logit * logit / static_cast<double>(c.logits.size());
    c.comparable = comparable_steps(c.margins, kErrorsOfMargin * std::sqrt(bound * wanted));
    const Answer a = answer(placed, c);
    const MeanSquares m = mean_squares(a.logits[0], c);
    EXPECT_LE(m.error, bound * m.wanted);
    expect_greedy(a, c);
    fmt::print("  {}: logits differ by an NMSE of {:.2g} (bound {:.2g}), {} greedy tokens compared\n", c.name,
               m.error / m.wanted, bound, c.comparable);
  }
}

}  // namespace
}  // namespace llorch::test
