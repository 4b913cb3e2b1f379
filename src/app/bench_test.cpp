// Shares of roofs: each piece of work is measured beside the better of the two that were found around it.
#include "app/bench.h"

#include <gtest/gtest.h>

#include "app/shapes.h"
#include "backend/reference/forwarding_backend_for_test.h"

namespace llorch {
namespace {

// The scalar reference on a machine whose roofs are given: as many as are measured.
class Given final : public ForwardingBackend {
 public:
  explicit Given(std::vector<Roof> roofs) : roofs_(std::move(roofs)) {}
  Roof measure_roof() override { return roofs_.at(n_measured_++); }

 private:
  const std::vector<Roof> roofs_;
  size_t n_measured_ = 0;
};

// One repeat: roofs before the prefill, between it and the decode, and after that.
BenchResult bench(const std::vector<Roof>& roofs) {
  Given backend(roofs);
  const Plan plan = shape_plan(shape_config("tiny"), "f16", 64);
  return run_bench(backend, plan, random_weights(1), {.prompt = 4, .context = 4, .tokens = 2, .repeats = 1});
}

double flops_per_s(const Measured& m) { return m.tokens_per_s * m.flops_per_token; }
double bytes_per_s(const Measured& m) { return m.tokens_per_s * m.bytes_per_token; }

TEST(Bench, SharesAreOfTheBetterOfTheRoofsAroundTheWork) {
  const BenchResult result = bench({{1e9, 5e9, 4e9}, {3e9, 2e9, 7e9}, {2e9, 6e9, 8e9}});
  EXPECT_EQ(result.roof.read_bytes_per_s, 3e9);
  EXPECT_EQ(result.roof.flops_per_s, 6e9);
  EXPECT_EQ(result.roof.matrix_flops_per_s, 8e9);
  EXPECT_DOUBLE_EQ(result.prefill.share_of_f32_peak, flops_per_s(result.prefill) / 5e9);
  EXPECT_DOUBLE_EQ(result.prefill.share_of_matrix_roof, flops_per_s(result.prefill) / 7e9);
  EXPECT_DOUBLE_EQ(result.decode.share_of_read_roof, bytes_per_s(result.decode) / 3e9);
  EXPECT_DOUBLE_EQ(result.decode.share_of_f32_peak, flops_per_s(result.decode) / 6e9);
  EXPECT_DOUBLE_EQ(result.decode.share_of_matrix_roof, flops_per_s(result.decode) / 8e9);
}

TEST(Bench, TheRunsRoofsAreTheBestOfAll) {
  const BenchResult result = bench({{9e9, 9e9, 9e9}, {1e9, 2e9, 3e9}, {1e9, 2e9, 3e9}});
  EXPECT_EQ(result.roof.read_bytes_per_s, 9e9);
  EXPECT_EQ(result.roof.flops_per_s, 9e9);
  EXPECT_EQ(result.roof.matrix_flops_per_s, 9e9);
}

TEST(Bench, WithoutAMatrixRoofThereIsNoShareOfIt) {
  const Roof roof = {1e9, 1e9, 0.0};
  const BenchResult result = bench({roof, roof, roof});
  EXPECT_EQ(result.roof.matrix_flops_per_s, 0.0);
  EXPECT_EQ(result.prefill.share_of_matrix_roof, 0.0);
  EXPECT_EQ(result.decode.share_of_matrix_roof, 0.0);
}

}  // namespace
}  // namespace llorch
