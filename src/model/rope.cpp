#include "model/rope.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "base/exact_math.h"

namespace llorch {
namespace {

constexpr double kTwoPi = 6.283185307179586;

// Llama 3.1: long wavelengths are divided by the factor, short ones kept, a linear blend between.
// Source: transformers, modeling_rope_utils.py, "llama3".
double llama3_frequency(const RopeScaling& s, double frequency) {
  const double wavelength = kTwoPi / frequency;
  if (wavelength < s.original_context / s.high_freq_factor) return frequency;
  if (wavelength > s.original_context / s.low_freq_factor) return frequency / s.factor;
  const double blend = (s.original_context / wavelength - s.low_freq_factor) / (s.high_freq_factor - s.low_freq_factor);
  return (1.0 - blend) * frequency / s.factor + blend * frequency;
}

// YaRN (Peng et al. 2023): a ramp over dimensions between interpolation and the original frequency.
class YarnRamp {
 public:
  explicit YarnRamp(const ModelConfig& c)
      : low_(std::max(std::floor(dimension(c, c.rope_scaling.beta_fast)), 0.0)),
        high_(std::min(std::ceil(dimension(c, c.rope_scaling.beta_slow)), c.head_dim - 1.0)),
        factor_(c.rope_scaling.factor) {
    if (high_ == low_) high_ += 0.001;
  }
  double operator()(double frequency, uint32_t i) const {
    const double ramp = std::clamp((i - low_) / (high_ - low_), 0.0, 1.0);
    return frequency / factor_ * ramp + frequency * (1.0 - ramp);
  }

 private:
  // The dimension that turns `rotations` times over the original context.
  static double dimension(const ModelConfig& c, double rotations) {
    return c.head_dim * exact::log(c.rope_scaling.original_context / (rotations * kTwoPi)) /
           (2.0 * exact::log(c.rope_theta));
  }
  double low_, high_, factor_;
};

double magnitude(const RopeScaling& s) {
  if (s.kind != RopeScaling::Kind::kYarn) return 1.0;
  return s.attention_factor > 0.0 ? s.attention_factor : 0.1 * exact::log(s.factor) + 1.0;
}

}  // namespace

std::vector<double> rope_frequencies(const ModelConfig& c, std::span<const float> factors) {
  std::vector<double> frequencies(c.head_dim / 2);
  if (!factors.empty() && factors.size() != frequencies.size())
    fail("rope_freqs.weight: expected {} factors, got {}", frequencies.size(), factors.size());
  for (uint32_t i = 0; i < frequencies.size(); ++i) {
    double frequency = exact::pow(c.rope_theta, -2.0 * i / c.head_dim);
    if (!factors.empty()) {
      if (!(factors[i] > 0.0f)) fail("rope_freqs.weight: factor {} is {}, expected more than 0", i, factors[i]);
      frequency /= factors[i];
    }
    switch (c.rope_scaling.kind) {
      case RopeScaling::Kind::kNone:
        break;
      case RopeScaling::Kind::kLinear:
        frequency /= c.rope_scaling.factor;
        break;
      case RopeScaling::Kind::kLlama3:
        frequency = llama3_frequency(c.rope_scaling, frequency);
        break;
      case RopeScaling::Kind::kYarn:
        frequency = YarnRamp(c)(frequency, i);
        break;
    }
    frequencies[i] = frequency;
  }
  return frequencies;
}

RopeTable make_rope_table(const ModelConfig& config, uint32_t context, std::span<const float> factors) {
  const std::vector<double> frequencies = rope_frequencies(config, factors);
  const double scale = magnitude(config.rope_scaling);
  RopeTable table{context, config.head_dim / 2, {}, {}};
  table.cos.reserve(size_t{context} * table.half_dim);
  table.sin.reserve(size_t{context} * table.half_dim);
  for (uint32_t position = 0; position < context; ++position)
    for (const double frequency : frequencies) {
      table.cos.push_back(static_cast<float>(exact::cos(position * frequency) * scale));
      table.sin.push_back(static_cast<float>(exact::sin(position * frequency) * scale));
    }
  return table;
}

}  // namespace llorch
