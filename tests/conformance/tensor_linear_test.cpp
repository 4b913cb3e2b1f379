// The tensor cores' Linear in all tilings, also in those that no batch here is cut into: tiles of each size, shares of
// K, gated rows in tiles of another size.
#include <cmath>
#include <numeric>

#include "backend/cuda/memory.h"
#include "backend/cuda/tensor_kernels.h"
#include "base/half.h"
#include "fast_backends.h"

namespace llorch {
namespace {

using namespace cuda;

// Emulated, the last device runs blocks in another order each time.
int last_device() { return static_cast<int>(test::backends_under_test().size()) - 1; }

// Kernels, and the tiles that they take.
struct Kernels {
  const char* name;
  bool is_wgmma;
  void (*linear)(const KernelStream& stream, const TensorLinearArgs& args);
  std::span<const int32_t> tile_rows;
};
constexpr int32_t kRowsOfTiles[] = {32, 64, 96, 128};
constexpr Kernels kKernels[] = {{"wgmma", true, linear_on_tensor_cores, kRowsOfTiles},
                                {"mma", false, linear_with_mma, std::span(kRowsOfTiles).first(2)}};

class TensorLinearConformance : public testing::TestWithParam<Kernels> {
 protected:
  void SetUp() override {
    LLORCH_SKIP_WITHOUT_BACKEND();
    if (GetParam().is_wgmma && !test::has_wgmma(last_device())) GTEST_SKIP() << "the device has no wgmma";
    use_device(last_device());
  }
};
INSTANTIATE_TEST_SUITE_P(Kernels, TensorLinearConformance, testing::ValuesIn(kKernels),
                         [](const auto& test) { return test.param.name; });

constexpr int32_t kRows = 150, kCols = 840, kStages = 14;  // of K, the last one not full
constexpr int kMultiprocessors = 132;

template <typename T>
std::vector<T> to_host(const Stream& stream, const DeviceArray<T>& array, size_t n) {
  std::vector<T> host(n);
  stream.to_host(host.data(), array.data(), n);
  stream.synchronize();
  return host;
}

// Two stacked matrices of f16, rows, their 16-bit form, and all that a product needs beside them.
class Product {
 public:
  Product(const Kernels& kernels, std::vector<int32_t> outputs) : kernels_(kernels), outputs_(std::move(outputs)) {
    test::Random random(static_cast<uint64_t>(outputs_[0]));
    for (const int32_t n : outputs_) add_matrix(n, random);
    x_ = random.values(size_t{kRows} * kCols, test::Values::kPlain);
    upload(x_, device_x_);
    args_.n_rows = kRows;
    args_.zeros = filled(zeros_, size_t{kStageUnits} * kGroup);
    args_.arrivals = filled(arrivals_, kMaxArrivals);
    args_.partial = filled(partial_, most_share_floats({kRows, args_.n_groups, kStages}));
    args_.y_width = std::accumulate(outputs_.begin(), outputs_.end(), 0);
  }

  // In double, of the products' own inputs.
  double exact(int32_t row, int32_t output) const {
    double sum = 0.0;
    for (int32_t k = 0; k < kCols; ++k)
      sum += double{f16_to_f32(f32_to_f16_saturate(x_[static_cast<size_t>(row * kCols + k)]))} *
             double{w_[static_cast<size_t>(output * kCols + k)]};
    return sum;
  }

  // y, or the shares that are left to be added to it.
  std::vector<float> run(int32_t tile_rows, int32_t n_shares, const std::vector<float>& y, bool leaves) {
    TensorLinearArgs args = prepared(tile_rows, n_shares, {});
    DeviceArray<float> device_y;
    upload(y, device_y);
    args.y = device_y.data();
    args.accumulate = true;
    args.leaves_shares = leaves;
    kernels_.linear(stream(), args);
    const size_t n = y.size();
    return leaves ? to_host(stream_, partial_, n * static_cast<size_t>(n_shares)) : to_host(stream_, device_y, n);
  }

  // silu(gate) * up as it is read: [rows][units * 8].
  std::vector<float> run_gated(int32_t tile_rows, int32_t n_shares, int32_t gated_rows) {
    const int32_t n_units = half_units(outputs_[0]);
    const auto room = static_cast<size_t>(kRows + 2 * kTileRows);
    DeviceArray<uint4> units(kActivationMemory, room * static_cast<size_t>(n_units));
    DeviceArray<float> scale(kActivationMemory, room);
    stream_.fill_bytes(units.data(), 0, units.bytes());  // copied whole, also tiles that no row is in
    stream_.fill_bytes(scale.data(), 0, scale.bytes());
    TensorLinearArgs args = prepared(tile_rows, n_shares, {scale.data(), 400.0f});
    args.gated = {units.data(), scale.data(), n_units, gated_rows};
    kernels_.linear(stream(), args);
    const std::vector<uint4> all = to_host(stream_, units, units.size());
    const std::vector<float> scales = to_host(stream_, scale, kRows);
    std::vector<float> rows;
    for (int32_t row = 0; row < kRows; ++row)
      for (int32_t column = 0; column < n_units * 8; ++column) {
        const int32_t unit = (row / gated_rows * n_units + column / 8) * gated_rows + row % gated_rows;
        const auto* halves = reinterpret_cast<const uint16_t*>(&all[static_cast<size_t>(unit)]);
        rows.push_back(f16_to_f32(halves[column % 8]) * scales[static_cast<size_t>(row)]);
      }
    return rows;
  }

  bool counters_are_zero() {
    const std::vector<unsigned> all = to_host(stream_, arrivals_, arrivals_.size());
    return std::all_of(all.begin(), all.end(), [](unsigned n) { return n == 0; });
  }
  int32_t width() const { return args_.y_width; }

 private:
  void add_matrix(int32_t n, test::Random& random) {
    const int32_t groups = divide_up(n, kGroup), units = kCols / 8;
    std::vector<uint16_t> halves(static_cast<size_t>(groups * units * kGroup * 8));
    for (int32_t output = 0; output < n; ++output)
      for (int32_t k = 0; k < kCols; ++k) {
        const uint16_t h = f32_to_f16_saturate(random.normal());
        const int32_t unit = (output / kGroup * units + k / 8) * kGroup + output % kGroup;
        halves[static_cast<size_t>(unit * 8 + k % 8)] = h;
        w_.push_back(f16_to_f32(h));
      }
    upload(halves, matrices_[args_.n_parts]);
    MatrixView w;
    w.units = reinterpret_cast<uint4*>(matrices_[args_.n_parts].data());
    w.rows = n;
    w.cols = kCols;
    w.units_per_row = units;
    args_.parts[args_.n_parts++] = {{w, nullptr, args_.n_groups, static_cast<int32_t>(w_.size()) / kCols - n}};
    args_.n_groups += groups;
  }

  TensorLinearArgs prepared(int32_t tile_rows, int32_t n_shares, const GatedScale& gated) {
    const int32_t n_units = half_units(kCols);
    units_ = DeviceArray<uint4>(kActivationMemory, static_cast<size_t>((kRows + kTileRows) * n_units));
    scale_ = DeviceArray<float>(kActivationMemory, kRows + kTileRows);
    stream_.fill_bytes(units_.data(), 0, units_.bytes());  // a tile has more rows
    stream_.fill_bytes(scale_.data(), 0, scale_.bytes());
    TensorLinearArgs args = args_;
    args.x = {units_.data(), scale_.data(), n_units, tile_rows};
    args.n_shares = n_shares;
    InputRows in;
    in.x = device_x_.data();
    in.stride = in.cols = kCols;
    half_rows(stream(), DType::kF16, in, kRows, args.x, gated, {});
    return args;
  }

  template <typename T>
  void upload(const std::vector<T>& host, DeviceArray<T>& array) {
    array = DeviceArray<T>(kActivationMemory, host.size());
    stream_.to_device(array.data(), host.data(), host.size());
    stream_.synchronize();
  }
  template <typename T>
  T* filled(DeviceArray<T>& array, size_t n) {
    array = DeviceArray<T>(kActivationMemory, n);
    stream_.fill_bytes(array.data(), 0, array.bytes());
    return array.data();
  }
  KernelStream stream() const { return {stream_.get(), false, kMultiprocessors}; }

  const Kernels kernels_;
  const std::vector<int32_t> outputs_;
  const Stream stream_;
  std::vector<float> w_, x_;  // [outputs, kCols], [kRows, kCols]
  TensorLinearArgs args_;
  DeviceArray<uint16_t> matrices_[2];
  DeviceArray<float> device_x_, partial_, scale_;
  DeviceArray<uint4> units_, zeros_;
  DeviceArray<unsigned> arrivals_;
};

double nmse(const std::vector<float>& got, const std::vector<double>& want) {
  double error = 0.0, square = 0.0;
  for (size_t i = 0; i < got.size(); ++i) {
    error += std::pow(double{got[i]} - want[i], 2);
    square += std::pow(want[i], 2);
  }
  return error / square;
}

// The block that comes last adds shares in ascending order: as the host does with those that are left.
TEST_P(TensorLinearConformance, SharesAreAddedInOrder) {
  Product product(GetParam(), {131, 156});
  const std::vector<float> before = test::Random(1).values(size_t{kRows} * product.width(), test::Values::kPlain);
  std::vector<double> want(before.begin(), before.end());
  for (int32_t row = 0; row < kRows; ++row)
    for (int32_t i = 0; i < product.width(); ++i)
      want[static_cast<size_t>(row * product.width() + i)] += product.exact(row, i);
  for (const int32_t tile_rows : GetParam().tile_rows)
    for (const int32_t n_shares : {1, 2, 5, 7}) {
      SCOPED_TRACE(fmt::format("tiles of {} rows, {} shares", tile_rows, n_shares));
      const std::vector<float> got = product.run(tile_rows, n_shares, before, false);
      EXPECT_LT(nmse(got, want), 1e-11);
      EXPECT_TRUE(product.counters_are_zero());
      if (n_shares == 1) continue;
      const std::vector<float> left = product.run(tile_rows, n_shares, before, true);
      std::vector<float> joined = before;
      for (size_t i = 0; i < joined.size(); ++i) {
        float sum = left[i];
        for (size_t s = 1; s < static_cast<size_t>(n_shares); ++s) sum += left[s * joined.size() + i];
        joined[i] += sum;
      }
      EXPECT_EQ(got, joined);
      EXPECT_EQ(product.run(tile_rows, n_shares, before, false), got) << "again";
    }
}

TEST_P(TensorLinearConformance, GatedRowsLieInTilesOfAnySize) {
  constexpr int32_t kFfn = 140;
  Product product(GetParam(), {kFfn, kFfn});
  const auto width = static_cast<size_t>(half_units(kFfn) * 8);
  std::vector<double> want(kRows * width, 0.0);
  for (int32_t row = 0; row < kRows; ++row)
    for (int32_t i = 0; i < kFfn; ++i) {
      const double gate = product.exact(row, i);
      want[static_cast<size_t>(row) * width + static_cast<size_t>(i)] =
          gate / (1.0 + std::exp(-gate)) * product.exact(row, kFfn + i);
    }
  for (const int32_t tile_rows : GetParam().tile_rows)
    for (const int32_t n_shares : {1, 3}) {
      const std::vector<float> got = product.run_gated(tile_rows, n_shares, tile_rows);
      EXPECT_LT(nmse(got, want), 1e-7) << tile_rows << ", shares " << n_shares;
      for (const int32_t gated_rows : kRowsOfTiles)
        EXPECT_EQ(product.run_gated(tile_rows, n_shares, gated_rows), got)
            << tile_rows << " in tiles of " << gated_rows << ", shares " << n_shares;
      EXPECT_TRUE(product.counters_are_zero());
    }
}

}  // namespace
}  // namespace llorch
