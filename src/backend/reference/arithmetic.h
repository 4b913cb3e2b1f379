// The meaning of every verb in scalar float32: which operations, in which order, with which roundings. This file is the
// specification that all backends reproduce bit for bit; docs/numerics.md says why each rule is as it is.
//
// "fma" below is a fused multiply-add with one rounding; every other operation rounds on its own (-ffp-contract=off).
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>
#include <span>
#include <vector>

#include "base/exp.h"
#include "tensor/blocks.h"
#include "tensor/tensor.h"

namespace llorch::reference {

inline constexpr int kSegment = 256;      // K is summed in segments of this many elements
inline constexpr int kLanes = 32;         // partial sums of RMSNorm and softmax
inline constexpr int kChunk = 64;         // positions of one softmax chunk
inline constexpr int kQuantBlock = 32;    // activations that share a scale
inline constexpr float kTiny = 0x1p-64f;  // blocks whose largest magnitude is below are zero

// Sum of 32 partial sums by the fixed tree 16, 8, 4, 2, 1.
inline float tree_sum(float (&partial)[kLanes]) {
  for (int width = kLanes / 2; width > 0; width /= 2)
    for (int i = 0; i < width; ++i) partial[i] += partial[i + width];
  return partial[0];
}

// Linear with float weights: K in segments, inside a segment one fma after another from +0, segment sums added left to
// right.
inline float dot(const float* w, const float* x, int k_size) {
  float total = 0.0f;
  for (int begin = 0; begin < k_size; begin += kSegment) {
    float sum = 0.0f;
    for (int k = begin; k < k_size && k < begin + kSegment; ++k) sum = std::fma(w[k], x[k], sum);
    total += sum;
  }
  return total;
}

// 32 activations as int16 with one scale: the input of Linear with block-quantized weights.
struct Int16Block {
  float d;
  int16_t q[kQuantBlock];
};

inline Int16Block quantize(const float* x) {
  Int16Block block{};
  float amax = 0.0f;
  bool finite = true;
  for (int i = 0; i < kQuantBlock; ++i) {
    finite = finite && std::isfinite(x[i]);
    amax = std::fmax(amax, std::fabs(x[i]));
  }
  if (!finite) {
    block.d = std::numeric_limits<float>::quiet_NaN();
    return block;
  }
  if (amax < kTiny) return block;
  block.d = amax / 32767.0f;
  for (int i = 0; i < kQuantBlock; ++i) block.q[i] = static_cast<int16_t>(std::nearbyint(x[i] / block.d));
  return block;
}

// Linear with block-quantized weights: per scale group of the format (32 or 16 elements, inside one block of
// activations) an exact integer sum, then one fma with the product of both scales, and for formats with a minimum a
// second one; groups ascending, in segments as above.
template <typename Block>
float dot(const Block* w, const Int16Block* x, int k_size) {
  constexpr int kGroup = Block::kScaleGroup;
  float total = 0.0f;
  for (int begin = 0; begin < k_size; begin += kSegment) {
    float acc = 0.0f;
    for (int k = begin; k < k_size && k < begin + kSegment; k += kGroup) {
      const Block& block = w[k / Block::kElements];
      const Int16Block& activations = x[k / kQuantBlock];
      int32_t products = 0, sum = 0;
      for (int i = 0; i < kGroup; ++i) {
        const int32_t q = activations.q[k % kQuantBlock + i];
        products += quant(block, k % Block::kElements + i) * q;
        sum += q;
      }
      const int g = k % Block::kElements / kGroup;
      acc = std::fma(static_cast<float>(products), scale(block, g) * activations.d, acc);
      if constexpr (Block::kHasMinimum) acc = std::fma(minimum(block, g) * activations.d, static_cast<float>(sum), acc);
    }
    total += acc;
  }
  return total;
}

// y = (x * (1 / sqrt(mean of squares + eps))) * w, the squares in 32 partial sums (k mod 32, ascending, by fma).
inline void rms_norm(const float* x, const float* w, float eps, int n, float* y) {
  float partial[kLanes] = {};
  for (int k = 0; k < n; ++k) partial[k % kLanes] = std::fma(x[k], x[k], partial[k % kLanes]);
  const float inverse = 1.0f / std::sqrt(tree_sum(partial) / static_cast<float>(n) + eps);
  for (int k = 0; k < n; ++k) y[k] = (x[k] * inverse) * w[k];
}

// Rotation of one pair by an angle given as its cosine and sine.
inline void rotate(float& a, float& b, float cos, float sin) {
  const float rotated_a = std::fma(a, cos, -(b * sin));
  const float rotated_b = std::fma(a, sin, b * cos);
  a = rotated_a;
  b = rotated_b;
}

// A block of a key or value (n <= 32 elements of one head) as it is read back from 8 bits: one binary16 scale, rounded
// from amax / 127, times integers of -127 .. 127. A NaN makes the whole block NaN; infinities are saturated.
inline void round_to_q8(const float* x, int n, float* out) {
  float amax = 0.0f;
  bool has_nan = false;
  for (int i = 0; i < n; ++i) {
    has_nan = has_nan || std::isnan(x[i]);
    amax = std::fmax(amax, std::fabs(x[i]));
  }
  const float d = f16_to_f32(f32_to_f16_saturate(has_nan ? std::numeric_limits<float>::quiet_NaN() : amax / 127.0f));
  for (int i = 0; i < n; ++i) {
    const float q = has_nan || d == 0.0f ? 0.0f : std::nearbyint(std::fmin(std::fmax(x[i] / d, -127.0f), 127.0f));
    out[i] = d * static_cast<float>(static_cast<int8_t>(q));
  }
}

// Running softmax-weighted sum of one query row and head over chunks of positions.
struct Softmax {
  float m = -std::numeric_limits<float>::infinity();
  float l = 0.0f;
  std::vector<float> o;  // [head_dim]
};

// Merges one chunk from the left: scores[i] for positions [begin, end) inside one chunk of 64, value(position) their V.
template <typename Value>
void merge_chunk(Softmax& state, std::span<const float> scores, int begin, Value value) {
  float m_chunk = -std::numeric_limits<float>::infinity();
  for (const float s : scores) m_chunk = s > m_chunk ? s : m_chunk;
  float partial[kLanes] = {};
  std::vector<float> o(state.o.size(), 0.0f);
  for (size_t i = 0; i < scores.size(); ++i) {
    const int position = begin + static_cast<int>(i);
    const float p = exp_f32(scores[i] - m_chunk);
    partial[position % kLanes] += p;
    const float* v = value(position);
    for (size_t d = 0; d < o.size(); ++d) o[d] = std::fma(p, v[d], o[d]);
  }
  const float m = m_chunk > state.m ? m_chunk : state.m;
  const float a = exp_f32(state.m - m), b = exp_f32(m_chunk - m);
  state.l = std::fma(state.l, a, tree_sum(partial) * b);
  for (size_t d = 0; d < o.size(); ++d) state.o[d] = std::fma(state.o[d], a, o[d] * b);
  state.m = m;
}

}  // namespace llorch::reference
