// What tests of numeric mode fast share: the backends that have it, and its bounds.
#pragma once

#include <cuda_runtime.h>
#include <gtest/gtest.h>

#include <vector>

#include "backends_under_test.h"
#include "random_model.h"
#include "trace/bounds.h"

namespace llorch::test {

inline constexpr uint32_t kMaxRows = 288;

// Whether a CUDA device has products of four warps.
inline bool has_wgmma(int device) {
  cudaDeviceProp properties{};
  return cudaGetDeviceProperties(&properties, device) == cudaSuccess && properties.major == 9;
}

inline std::vector<BackendUnderTest> fast_backends() {
  std::vector<BackendUnderTest> all = backends_under_test();
  // The largest emulated device, where products of few tiles are cut along K, and that without wgmma.
  if (is_short_set() && all.size() > 2) all.erase(all.begin(), all.end() - 2);
  return all;
}

// Every row's NMSE is at most `bound`; where one side is not finite, the other is not.
inline ::testing::AssertionResult is_near(std::span<const float> got, std::span<const float> want, size_t width,
                                          double bound) {
  if (got.size() != want.size())
    return ::testing::AssertionFailure() << got.size() << " values, expected " << want.size();
  for (size_t row = 0; row < got.size() / width; ++row) {
    double error = 0.0, square = 0.0;
    for (size_t i = row * width; i < (row + 1) * width; ++i) {
      if (std::isfinite(got[i]) != std::isfinite(want[i]))
        return ::testing::AssertionFailure()
               << fmt::format("row {} element {}: got {}, expected {}", row, i % width, got[i], want[i]);
      if (!std::isfinite(got[i])) continue;
      error += std::pow(double{got[i]} - double{want[i]}, 2);
      square += std::pow(double{want[i]}, 2);
    }
    if (error > bound * square)
      return ::testing::AssertionFailure() << fmt::format("row {}: NMSE {}, bound {}", row, error / square, bound);
  }
  return ::testing::AssertionSuccess();
}

inline CompileOptions options_of(Numerics numerics) {
  return {.kv = {.n_pages = 40, .page_size = 16},
          .numerics = numerics,
          .max_rows = kMaxRows,
          .max_logit_rows = kMaxRows,
          .poison = true};
}

inline BoundConditions fast_conditions(const Plan& plan) {
  TraceInfo exact, fast;
  exact.numerics = "exact";
  exact.kv_dtype = fast.kv_dtype = "f16";
  fast.numerics = "fast";
  exact.tokens.resize(kMaxRows);
  for (size_t i = 0; i < plan.steps.size(); ++i) exact.steps.push_back(traced_step(plan, i));
  return bound_conditions(exact, fast);
}

}  // namespace llorch::test
