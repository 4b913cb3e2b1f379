// Linear with block-quantized weights against double, within bounds derived beside each test, and its rules at their
// edges: the int16 blocks of activations, and the sums of every block type.
#include <algorithm>
#include <cstring>

#include "backend/reference/arithmetic_for_test.h"

namespace llorch::reference {
namespace {

// x / d lies within a rounding of the true quotient and q within 1/2 of it: |x - d q| <= 0.502 d, d = amax / 32767.
constexpr double kQuantError = 0.5025 / 32767.0;  // of the block's amax; about 2^-16

TEST_F(Arithmetic, QuantizeKeepsSixteenBits) {
  for (const float scale : {0x1p-60f, 1e-10f, 1.0f, 1e10f, 0x1p124f}) {
    const std::vector<float> x = normals(kQuantBlock, scale);
    const Int16Block block = quantize(x.data());
    float amax = 0.0f;
    for (const float v : x) amax = std::max(amax, std::fabs(v));
    ASSERT_EQ(block.d, amax / 32767.0f);
    int largest = 0;
    for (int i = 0; i < kQuantBlock; ++i) {
      EXPECT_LE(std::fabs(double{block.d} * block.q[i] - x[i]), kQuantError * amax);
      largest = std::max(largest, std::abs(int{block.q[i]}));
    }
    EXPECT_EQ(largest, 32767);
  }
}

TEST_F(Arithmetic, QuantizeRoundsTiesToEven) {
  float x[kQuantBlock] = {32767.0f, 0.5f, 1.5f, 2.5f, -0.5f, -1.5f, -2.5f, 32766.5f, -32766.5f, -32767.0f, -0.0f};
  const Int16Block block = quantize(x);
  EXPECT_EQ(block.d, 1.0f);
  const int16_t want[] = {32767, 0, 2, 2, 0, -2, -2, 32766, -32766, -32767, 0, 0};
  for (size_t i = 0; i < std::size(want); ++i) EXPECT_EQ(block.q[i], want[i]) << x[i];
}

void expect_all(const Int16Block& block, float d, int16_t q) {
  if (std::isnan(d))
    EXPECT_TRUE(std::isnan(block.d));
  else
    EXPECT_EQ(block.d, d);
  for (const int16_t value : block.q) EXPECT_EQ(value, q);
}

TEST_F(Arithmetic, QuantizeMakesTinyBlocksZero) {
  float x[kQuantBlock] = {};
  expect_all(quantize(x), 0.0f, 0);
  std::fill(std::begin(x), std::end(x), std::nextafter(kTiny, 0.0f));
  expect_all(quantize(x), 0.0f, 0);
  std::fill(std::begin(x), std::end(x), -std::numeric_limits<float>::denorm_min());
  expect_all(quantize(x), 0.0f, 0);
  std::fill(std::begin(x), std::end(x), -kTiny);
  expect_all(quantize(x), kTiny / 32767.0f, -32767);
}

TEST_F(Arithmetic, QuantizeMarksBlocksThatAreNotFinite) {
  for (const float bad : {kNaN, -kNaN, kInfinity, -kInfinity})
    for (const int at : {0, 13, 31}) {
      std::vector<float> x = normals(kQuantBlock);
      x[static_cast<size_t>(at)] = bad;
      expect_all(quantize(x.data()), kNaN, 0);
    }
  float huge[kQuantBlock] = {std::numeric_limits<float>::max(), -std::numeric_limits<float>::max()};
  const Int16Block block = quantize(huge);
  EXPECT_EQ(block.q[0], 32767);
  EXPECT_EQ(block.q[1], -32767);
}

template <typename Block>
class BlockArithmetic : public Arithmetic {
 protected:
  // Random codes, and whatever else is not a binary16.
  std::vector<Block> blocks(int n) {
    std::vector<Block> w(static_cast<size_t>(n));
    for (Block& block : w) {
      for (size_t i = 0; i < sizeof(Block); ++i) reinterpret_cast<uint8_t*>(&block)[i] = byte();
      set_halves(block, f32_to_f16_saturate(normals(1, 0.1f)[0]), f32_to_f16_saturate(normals(1)[0]));
    }
    return w;
  }
  static void set_halves(Block& block, uint16_t d, uint16_t m) {
    block.d = d;
    if constexpr (requires { block.m; }) block.m = m;
    if constexpr (requires { block.dmin; }) block.dmin = m;
  }
  // The first element of each 32 is 1, the others are 0.
  static Block first_of_each_32() {
    Block block{};
    set_halves(block, 0x3c00, 0);
    if constexpr (std::is_same_v<Block, BlockQ6_K>) {
      for (uint8_t& q : block.qh) q = 0xaa;
      for (const int i : {0, 32, 64, 96}) block.ql[i] = 0x11;
      for (int8_t& s : block.scales) s = 1;
    } else if constexpr (Block::kElements == 256) {
      for (const int i : {0, 32, 64, 96}) block.qs[i] = 0x11;
      for (uint8_t& s : block.scales) s = 1;
    } else {
      if constexpr (std::is_same_v<Block, BlockQ4_0>) std::fill(std::begin(block.qs), std::end(block.qs), 0x88);
      if constexpr (std::is_same_v<Block, BlockQ5_0>) std::fill(std::begin(block.qh), std::end(block.qh), 0xff);
      block.qs[0] += 1;
    }
    return block;
  }
  static std::vector<Int16Block> quantized(const std::vector<float>& x) {
    std::vector<Int16Block> result;
    for (size_t k = 0; k < x.size(); k += kQuantBlock) result.push_back(quantize(&x[k]));
    return result;
  }
};
using BlockTypes =
    ::testing::Types<BlockQ8_0, BlockQ4_0, BlockQ4_1, BlockQ5_0, BlockQ5_1, BlockQ4_K, BlockQ5_K, BlockQ6_K>;
class BlockName {
 public:
  template <typename Block>
  static std::string GetName(int i) {
    return std::vector<std::string>{"Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q4_K", "Q5_K", "Q6_K"}[size_t(i)];
  }
};
TYPED_TEST_SUITE(BlockArithmetic, BlockTypes, BlockName);

// Two errors add up: that of the activations (above), and the roundings of the sum. A group's term passes through the
// conversion of its integer sum, the product of both scales, the fmas of its segment (one or two for each group) and
// the sums of all segments. The scale and minimum of a group are exact.
TYPED_TEST(BlockArithmetic, DotIsNearDouble) {
  constexpr int kGroup = TypeParam::kScaleGroup;
  for (const int n_blocks : {1, 2, 7, 8, 9, 16, 31, 128}) {
    const int k_size = n_blocks * TypeParam::kElements;
    const std::vector<TypeParam> w = this->blocks(n_blocks);
    const std::vector<float> x = this->normals(k_size);
    const std::vector<Int16Block> q = this->quantized(x);
    double exact = 0.0, activation_error = 0.0, magnitude = 0.0;
    for (int k = 0; k < k_size; k += kGroup) {
      const TypeParam& block = w[k / TypeParam::kElements];
      const int first = k % TypeParam::kElements, g = first / kGroup;
      double weights = 0.0, products = 0.0, sum = 0.0;
      for (int i = 0; i < kGroup; ++i) {
        const int16_t activation = q[k / kQuantBlock].q[k % kQuantBlock + i];
        const double weight = double{scale(block, g)} * quant(block, first + i) + minimum(block, g);
        exact += weight * x[k + i];
        weights += std::fabs(weight);
        products += double{1} * quant(block, first + i) * activation;
        sum += activation;
      }
      const double d = q[k / kQuantBlock].d;  // of amax / 32767
      activation_error += kQuantError * d * 32767.01 * weights;
      magnitude += d * (std::fabs(scale(block, g) * products) + std::fabs(minimum(block, g) * sum));
    }
    const double roundings =
        2 + kSegment / kGroup * (TypeParam::kHasMinimum ? 2 : 1) + (k_size + kSegment - 1) / kSegment;
    EXPECT_LE(std::fabs(dot(w.data(), q.data(), k_size) - exact), activation_error + gamma(roundings) * magnitude)
        << n_blocks;
  }
}

// Codes of all bits set or none, at their lowest and highest, times the largest activations: as in 64 bits.
TYPED_TEST(BlockArithmetic, SumsOfAGroupAreExactAtTheirLargest) {
  constexpr int kGroup = TypeParam::kScaleGroup;
  for (const int fill : {0x00, 0x7f, 0x80, 0xff}) {
    TypeParam w{};
    std::memset(&w, fill, sizeof w);
    this->set_halves(w, 0x3c00, 0);
    const std::vector<Int16Block> x = this->quantized(std::vector<float>(TypeParam::kElements, 32767.0f));
    float want = 0.0f;
    for (int g = 0; g < TypeParam::kElements / kGroup; ++g) {
      int64_t products = 0;
      for (int i = 0; i < kGroup; ++i) products += int64_t{32767} * quant(w, g * kGroup + i);
      want = std::fma(static_cast<float>(products), scale(w, g), want);
    }
    EXPECT_EQ(dot(&w, x.data(), TypeParam::kElements), want) << fill;
  }
}

TYPED_TEST(BlockArithmetic, SegmentsOf256AreAddedLeftToRight) {
  const std::vector<TypeParam> w(512 / TypeParam::kElements, this->first_of_each_32());
  std::vector<Int16Block> x(16);
  for (size_t b = 0; b < 16; ++b) x[b] = {b == 0 ? 0x1p24f : 1.0f, {1}};
  EXPECT_EQ(dot(w.data(), x.data(), 256), 0x1p24f);
  if (TypeParam::kElements == 32) {
    EXPECT_EQ(dot(w.data(), x.data(), 320), 0x1p24f + 2);
  }
  EXPECT_EQ(dot(w.data(), x.data(), 512), 0x1p24f + 8);
}

TYPED_TEST(BlockArithmetic, NaNIsNotLost) {
  const std::vector<TypeParam> w = this->blocks(768 / TypeParam::kElements);
  for (const int at : {0, 255, 256, 767}) {
    std::vector<float> x = this->normals(768);
    x[static_cast<size_t>(at)] = kNaN;
    EXPECT_TRUE(std::isnan(dot(w.data(), this->quantized(x).data(), 768)));
    EXPECT_TRUE(std::isnan(dot(x.data(), this->normals(768).data(), 768)));
  }
  const std::vector<TypeParam> zeros(1);  // codes of zero times NaN
  const auto nan = this->quantized(std::vector<float>(TypeParam::kElements, kNaN));
  EXPECT_TRUE(std::isnan(dot(zeros.data(), nan.data(), TypeParam::kElements)));
}

}  // namespace
}  // namespace llorch::reference
