// The reference's arithmetic against double, within bounds derived beside each test, and its rules at their edges.
#include "backend/reference/arithmetic.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <random>

namespace llorch::reference {
namespace {

constexpr double kU = 0x1p-24;  // half an ulp of 1: the relative error of one rounding
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();

// Relative error of n roundings one after another (Higham's gamma).
double gamma(double n) { return n * kU / (1.0 - n * kU); }

class Arithmetic : public ::testing::Test {
 protected:
  std::vector<float> normals(int n, float scale = 1.0f) {
    std::vector<float> values(static_cast<size_t>(n));
    for (float& v : values) v = normal_(engine_) * scale;
    return values;
  }
  uint8_t byte() { return static_cast<uint8_t>(engine_()); }

 private:
  std::mt19937_64 engine_{1};
  std::normal_distribution<float> normal_;
};

// A product passes through at most 256 fmas of its segment and the sums of all segments.
TEST_F(Arithmetic, DotIsNearDouble) {
  for (const int n : {1, 2, 5, 31, 255, 256, 257, 511, 1000, 4096, 5632}) {
    const std::vector<float> w = normals(n), x = normals(n);
    double exact = 0.0, magnitude = 0.0;
    for (int k = 0; k < n; ++k) {
      const double product = double{w[k]} * x[k];
      exact += product;
      magnitude += std::fabs(product);
    }
    const double roundings = std::min(n, kSegment) + (n + kSegment - 1) / kSegment;
    EXPECT_LE(std::fabs(dot(w.data(), x.data(), n) - exact), gamma(roundings) * magnitude) << n;
  }
}

TEST_F(Arithmetic, DotSumsInSegmentsByFma) {
  std::vector<float> w(512, 1.0f), x(512, 1.0f);
  x[0] = 0x1p24f;  // swallows each 1 that is added to it alone
  EXPECT_EQ(dot(w.data(), x.data(), 256), 0x1p24f);
  EXPECT_EQ(dot(w.data(), x.data(), 257), 0x1p24f);        // 2^24 + 1, a tie to even
  EXPECT_EQ(dot(w.data(), x.data(), 258), 0x1p24f + 2);    // the second segment has 1 + 1
  EXPECT_EQ(dot(w.data(), x.data(), 512), 0x1p24f + 256);  // and here 256
  const float a[] = {-1.0f, 1.0f + 0x1p-12f}, b[] = {1.0f + 0x1p-11f, 1.0f + 0x1p-12f};
  EXPECT_EQ(dot(a, b, 2), 0x1p-24f);  // 0 if the product were rounded
}

TEST_F(Arithmetic, TreeSumAddsDistantLanesFirst) {
  float apart[kLanes] = {0x1p24f, 1.0f};
  apart[17] = 1.0f;  // joins lane 1 first
  EXPECT_EQ(tree_sum(apart), 0x1p24f + 2);
  float alone[kLanes] = {0x1p24f};
  alone[16] = alone[24] = 1.0f;  // each meets lane 0 alone, and is lost
  EXPECT_EQ(tree_sum(alone), 0x1p24f);
  float ones[kLanes];
  std::fill(std::begin(ones), std::end(ones), 1.0f);
  EXPECT_EQ(tree_sum(ones), 32.0f);
}

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

// The squares are of one sign: their sum has the relative error of ceil(n / 32) fmas and 5 sums, halved by the root;
// beside it stand the division by n and eps (halved too), root, inverse and two products.
TEST_F(Arithmetic, RmsNormIsNearDouble) {
  for (const int n : {1, 2, 31, 32, 33, 64, 576, 2048})
    for (const float magnitude : {1e-4f, 1.0f, 1e4f}) {
      const std::vector<float> x = normals(n, magnitude), w = normals(n);
      const float eps = 1e-5f;
      std::vector<float> y(x.size());
      rms_norm(x.data(), w.data(), eps, n, y.data());
      double squares = 0.0;
      for (const float v : x) squares += double{v} * v;
      const double inverse = 1.0 / std::sqrt(squares / n + double{eps});
      const double roundings = ((n + 31) / 32 + 5 + 2) / 2.0 + 4;
      for (size_t k = 0; k < x.size(); ++k) {
        const double exact = x[k] * inverse * w[k];
        ASSERT_LE(std::fabs(y[k] - exact), 1.01 * gamma(roundings) * std::fabs(exact)) << n << " element " << k;
      }
    }
}

TEST_F(Arithmetic, RmsNormOfZerosIsZeroAndKeepsNaN) {
  std::vector<float> x(48, 0.0f), y(48, 1.0f);
  const std::vector<float> w(48, 2.0f);
  rms_norm(x.data(), w.data(), 1e-5f, 48, y.data());
  EXPECT_EQ(y, x);
  for (const size_t at : {size_t{0}, size_t{33}, size_t{47}}) {
    x = normals(48);
    x[at] = kNaN;
    rms_norm(x.data(), w.data(), 1e-5f, 48, y.data());
    for (const float v : y) EXPECT_TRUE(std::isnan(v));
  }
}

// Two roundings: of one product, and of the fma.
TEST_F(Arithmetic, RotateIsNearDouble) {
  for (int i = 0; i < 1000; ++i) {
    const std::vector<float> v = normals(3);
    const float cos = static_cast<float>(std::cos(v[2])), sin = static_cast<float>(std::sin(v[2]));
    float a = v[0], b = v[1];
    rotate(a, b, cos, sin);
    const double ac = double{v[0]} * cos, bs = double{v[1]} * sin, as = double{v[0]} * sin, bc = double{v[1]} * cos;
    EXPECT_LE(std::fabs(a - (ac - bs)), gamma(2) * (std::fabs(ac) + std::fabs(bs)));
    EXPECT_LE(std::fabs(b - (as + bc)), gamma(2) * (std::fabs(as) + std::fabs(bc)));
  }
  float a = 3.0f, b = -5.0f;
  rotate(a, b, 1.0f, 0.0f);
  EXPECT_EQ(a, 3.0f);
  EXPECT_EQ(b, -5.0f);
  rotate(a, b, 0.0f, 1.0f);
  EXPECT_EQ(a, 5.0f);
  EXPECT_EQ(b, 3.0f);
  a = kNaN;
  rotate(a, b, 0.5f, 0.5f);
  EXPECT_TRUE(std::isnan(a) && std::isnan(b));
}

constexpr size_t kDim = 4;

// o / l over positions [first, first + scores), chunk by chunk as Attention walks them. v: [scores, kDim]
std::vector<float> weighted(const std::vector<float>& scores, const std::vector<float>& v, int first) {
  Softmax state{.o = std::vector<float>(kDim, 0.0f)};
  const int end = first + static_cast<int>(scores.size());
  for (int begin = first; begin < end;) {
    const int chunk_end = std::min(end, (begin / kChunk + 1) * kChunk);
    merge_chunk(state, std::span(scores).subspan(begin - first, chunk_end - begin), begin,
                [&](int position) { return &v[static_cast<size_t>(position - first) * kDim]; });
    begin = chunk_end;
  }
  for (float& o : state.o) o = o / state.l;
  return state.o;
}

// Each weight has the error of its exp, and of the exp and two roundings of every merge; an exp has 1e-7 and the
// rounding of its argument, at most the spread of the scores. Then 64 sums of a chunk and its tree. The error is that
// of o and that of l, relative to the sum of p |v|, and the division.
TEST_F(Arithmetic, SoftmaxIsNearDouble) {
  for (const int n : {1, 2, 31, 63, 64, 65, 127, 128, 129, 300})
    for (const int first : {0, 1, 37, 64})
      for (const float spread : {0.1f, 3.0f, 12.0f}) {
        const std::vector<float> scores = normals(n, spread), v = normals(n * static_cast<int>(kDim));
        const auto [low, high] = std::minmax_element(scores.begin(), scores.end());
        const double exp_error = 1e-7 + kU * (double{*high} - *low);
        const int n_chunks = (first + n - 1) / kChunk - first / kChunk + 1;
        const double error = exp_error + n_chunks * (exp_error + 3 * kU) + gamma(kChunk + 5);
        double l = 0.0, o[kDim] = {}, magnitude[kDim] = {};
        for (size_t i = 0; i < scores.size(); ++i) {
          const double p = std::exp(double{scores[i]} - *high);
          l += p;
          for (size_t d = 0; d < kDim; ++d) {
            o[d] += p * v[i * kDim + d];
            magnitude[d] += p * std::fabs(v[i * kDim + d]);
          }
        }
        const std::vector<float> got = weighted(scores, v, first);
        for (size_t d = 0; d < kDim; ++d)
          ASSERT_LE(std::fabs(got[d] - o[d] / l), (2.01 * error + kU) * magnitude[d] / l)
              << n << " positions from " << first << ", spread " << spread;
      }
}

TEST_F(Arithmetic, SoftmaxDropsWhatIsFarBelow) {
  const std::vector<float> v = normals(300 * static_cast<int>(kDim));
  for (const size_t top : {size_t{0}, size_t{63}, size_t{64}, size_t{299}}) {
    std::vector<float> scores(300, -1000.0f);
    scores[top] = -900.0f;
    const std::vector<float> got = weighted(scores, v, 0);
    for (size_t d = 0; d < kDim; ++d) EXPECT_EQ(got[d], v[top * kDim + d]) << "top at " << top;
  }
}

TEST_F(Arithmetic, SoftmaxKeepsNaN) {
  for (const int n : {1, 64, 65, 200})
    for (const int at : {0, n / 2, n - 1})
      for (const float bad : {kNaN, kInfinity}) {
        std::vector<float> scores = normals(n), v = normals(n * static_cast<int>(kDim));
        scores[static_cast<size_t>(at)] = bad;
        for (const float o : weighted(scores, v, 0)) EXPECT_TRUE(std::isnan(o)) << n << " positions, " << at;
      }
  std::vector<float> scores(130, 0.0f), v = normals(130 * static_cast<int>(kDim));
  scores[3] = -1000.0f;  // weight 0
  v[3 * kDim + 1] = kNaN;
  const std::vector<float> got = weighted(scores, v, 0);
  for (size_t d = 0; d < kDim; ++d) EXPECT_EQ(std::isnan(got[d]), d == 1);
}

}  // namespace
}  // namespace llorch::reference
