// The reference's arithmetic against double, within bounds derived beside each test, and its rules at their edges.
#include <algorithm>

#include "backend/reference/arithmetic_for_test.h"

namespace llorch::reference {
namespace {

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

// d has 11 bits, or the half of 2^-24 where it is subnormal, and q is within 1/2: the integer of the largest element is
// 127 if d was rounded down, too.
TEST_F(Arithmetic, EightBitKvKeepsAHundredth) {
  for (const int n : {32, 16, 8, 1})
    for (const float scale : {1e-2f, 1.0f, 1e4f}) {
      const std::vector<float> x = normals(n, scale);
      float amax = 0.0f, out[kQuantBlock];
      for (const float v : x) amax = std::max(amax, std::fabs(v));
      round_to_q8(x.data(), n, out);
      for (int i = 0; i < n; ++i) EXPECT_LE(std::fabs(out[i] - x[i]), amax * (0.5 / 127 + 0x1p-11)) << n;
    }
}

TEST_F(Arithmetic, EightBitKvAtItsEdges) {
  float out[kQuantBlock];
  const float mixed[] = {127.0f, 0.5f, 1.5f, -2.5f, -127.0f, -0.0f};
  round_to_q8(mixed, 6, out);  // d = 1: ties to even
  const float want[] = {127.0f, 0.0f, 2.0f, -2.0f, -127.0f, 0.0f};
  for (int i = 0; i < 6; ++i) EXPECT_EQ(out[i], want[i]) << i;
  const float tiny[] = {127 * 0x1.8p-25f, -127 * 0x1.8p-25f, 127 * 0x1p-25f};  // d rounds up to 2^-24
  round_to_q8(tiny, 3, out);
  EXPECT_EQ(out[0], 95 * 0x1p-24f);
  EXPECT_EQ(out[1], -95 * 0x1p-24f);
  EXPECT_EQ(out[2], 64 * 0x1p-24f);
  const float clamped[] = {127 * 0x1.4p-24f};  // d rounds down to 2^-24
  round_to_q8(clamped, 1, out);
  EXPECT_EQ(out[0], 127 * 0x1p-24f);
  const float nothing[] = {127 * 0x1p-26f};
  round_to_q8(nothing, 1, out);
  EXPECT_EQ(out[0], 0.0f);
  const float endless[] = {kInfinity, -kInfinity, 65504.0f};
  round_to_q8(endless, 3, out);
  EXPECT_EQ(out[0], 127 * 65504.0f);
  EXPECT_EQ(out[1], -127 * 65504.0f);
  EXPECT_EQ(out[2], 65504.0f);
  const float bad[] = {1.0f, kNaN, kInfinity};
  round_to_q8(bad, 3, out);
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(std::isnan(out[i]));
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
