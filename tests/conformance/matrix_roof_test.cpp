// The loops that the matrix roof is measured with: their sums are those of the products that are counted.
#include <numeric>
#include <random>

#include "backend/cuda/memory.h"
#include "backend/cuda/roof.h"
#include "backend/cuda/roof_matrix.h"
#include "base/half.h"
#include "fast_backends.h"

namespace llorch {
namespace {

using namespace cuda;

constexpr int kK = kRoofUnits * 8, kMultiprocessors = 2;
constexpr MemoryUse kUse = {"memory.test", "a test", "memory"};

// Small whole numbers, so that every sum is exact; as rows, and as the kernels read them.
class Operands {
 public:
  explicit Operands(DType dtype) : values_(size_t{kRoofRows} * kK), device_(kUse, values_.size()) {
    std::minstd_rand random(1);
    std::vector<uint16_t> halves(values_.size());
    for (size_t row = 0; row < kRoofRows; ++row)
      for (size_t k = 0; k < kK; ++k) {
        const float value = static_cast<float>(random() % 7) - 3.0f;
        values_[row * kK + k] = value;
        halves[(k / 8 * kRoofRows + row) * 8 + k % 8] =
            dtype == DType::kBF16 ? f32_to_bf16(value) : f32_to_f16_saturate(value);
      }
    const Stream stream;
    stream.to_device(device_.data(), halves.data(), halves.size());
    stream.synchronize();
  }

  const uint4* units() const { return reinterpret_cast<const uint4*>(device_.data()); }

  // The sum of the products of these rows of x with these of y.
  float sum_of(const std::vector<int>& x, const std::vector<int>& y) const {
    float total = 0.0f;
    for (size_t k = 0; k < kK; ++k) total += column_sum(x, k) * column_sum(y, k);
    return total;
  }

 private:
  float column_sum(const std::vector<int>& rows, size_t k) const {
    float sum = 0.0f;
    for (const int row : rows) sum += values_[static_cast<size_t>(row) * kK + k];
    return sum;
  }

  std::vector<float> values_;
  DeviceArray<uint16_t> device_;
};

// What each thread should have after one iteration, of a warp's rows of x and of y: a lane has of each 8 rows of x the
// one of its number / 4, of each 8 of y two.
std::vector<float> sums_of_warp(const Operands& operands, const std::vector<int>& x, const std::vector<int>& y) {
  std::vector<float> sums;
  for (int lane = 0; lane < 32; ++lane) {
    std::vector<int> own_x, own_y;
    for (const int row : x)
      if (row % 8 == lane / 4) own_x.push_back(row);
    for (const int row : y)
      if (row % 8 / 2 == lane % 4) own_y.push_back(row);
    sums.push_back(operands.sum_of(own_x, own_y));
  }
  return sums;
}

std::vector<int> rows(int first, int n) {
  std::vector<int> all(static_cast<size_t>(n));
  std::iota(all.begin(), all.end(), first);
  return all;
}

template <typename Multiply>
std::vector<float> run(size_t n_threads, const Multiply& multiply) {
  const Stream stream;
  DeviceArray<float> out(kUse, kMultiprocessors * n_threads);
  multiply(KernelStream{stream.get(), false, kMultiprocessors}, out.data());
  std::vector<float> sums(out.size());
  stream.to_host(sums.data(), out.data(), sums.size());
  stream.synchronize();
  return sums;
}

// Every block's sums, of so many iterations: those after the last restart.
void expect_sums(const std::vector<float>& got, std::vector<float> block, int iterations) {
  for (float& sum : block) sum *= static_cast<float>((iterations - 1) % kRoofRestart + 1);
  ASSERT_EQ(got.size(), block.size() * kMultiprocessors);
  for (size_t i = 0; i < got.size(); ++i) ASSERT_EQ(got[i], block[i % block.size()]) << "thread " << i;
}

TEST(MatrixRoofConformance, WarpsMultiplyWhatIsCounted) {
  LLORCH_SKIP_WITHOUT_BACKEND();
  test::one_backend();
  const Operands operands(DType::kF16);
  std::vector<float> block;
  for (int warp = 0; warp < kRoofThreads / 32; ++warp)
    for (const float sum : sums_of_warp(operands, rows(warp / 4 * 64, 64), rows(128 + warp % 4 * 64, 64)))
      block.push_back(sum);
  for (const int iterations : {3, kRoofRestart + 2})
    expect_sums(run(kRoofThreads, [&](const KernelStream& stream,
                                      float* out) { multiply_by_warps(stream, operands.units(), iterations, out); }),
                block, iterations);
}

TEST(MatrixRoofConformance, WarpgroupsMultiplyWhatIsCounted) {
  LLORCH_SKIP_WITHOUT_BACKEND();
  if (!test::has_wgmma(0)) GTEST_SKIP() << "the device has no wgmma";
  for (const DType dtype : {DType::kF16, DType::kBF16}) {
    const Operands operands(dtype);
    for (const int columns : {128, 256})
      for (const int n_warpgroups : {1, 2}) {
        SCOPED_TRACE(fmt::format("{}, {} columns, {} warpgroups", to_string(dtype), columns, n_warpgroups));
        std::vector<float> block;
        for (int warp = 0; warp < n_warpgroups * 4; ++warp) {
          std::vector<int> x;  // 16 of each product's 64
          for (int i = 0; i < 256 / columns; ++i)
            for (const int row : rows((warp / 4 * (256 / columns) + i) * 64 + warp % 4 * 16, 16)) x.push_back(row);
          for (const float sum : sums_of_warp(operands, x, rows(kRoofRows - columns, columns))) block.push_back(sum);
        }
        for (const int iterations : {3, kRoofRestart + 2})
          expect_sums(
              run(block.size(),
                  [&](const KernelStream& stream, float* out) {
                    multiply_by_warpgroups(stream, {dtype, columns, n_warpgroups}, operands.units(), iterations, out);
                  }),
              block, iterations);
      }
  }
}

TEST(MatrixRoofConformance, IsMeasured) {
  LLORCH_SKIP_WITHOUT_BACKEND();
  const bool has_wgmma = test::has_wgmma(0);
  EXPECT_GT(measure_matrix_roof(1, false, 1), 0.0);
  EXPECT_GT(measure_matrix_roof(1, has_wgmma, 1), 0.0);
}

}  // namespace
}  // namespace llorch
