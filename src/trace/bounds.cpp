#include "trace/bounds.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <string_view>

#include "plan/plan.h"

namespace llorch {
namespace {

// Mean squares of errors, relative to those of what they are errors of. docs/numerics.md derives each.
constexpr double kRounding = 0x1p-48;      // of one value to float32, a few times
constexpr double kSum = 0x1p-42;           // a sum of products in float32, in another order
constexpr double kScores = 0x1p-40;        // attention: exp makes a score's absolute error a relative one
constexpr double kInt16 = 0x1p-28;         // activations as int16 blocks
constexpr double kF16 = 0x1p-22;           // a factor rounded to f16
constexpr double kBF16 = 0x1p-16;          // to bf16
constexpr double kF16Attention = 0x1p-21;  // keys and values rounded to f16, or queries and weights too
constexpr double kPassedOn = 4.0;          // what a step makes of an error that it is fed
constexpr uint32_t kUnknownLayers = 64;

std::optional<DType> dtype_of(std::string_view name) {
  for (const DType dtype : kDTypes)
    if (to_string(dtype) == name) return dtype;
  return std::nullopt;
}

// Of one factor of a product that a fast side makes.
double product_noise(DType dtype) {
  if (dtype == DType::kBF16) return kBF16;
  return dtype == DType::kF16 ? kF16 : 2 * kF16;  // others round weights, too
}

double linear_noise(DType dtype, const BoundConditions& c) {
  return kSum + (is_quantized(dtype) ? kInt16 : 0.0) + (c.fast ? product_noise(dtype) : 0.0);
}

double own_noise(std::string_view verb, DType dtype, const BoundConditions& c) {
  if (verb == "linear") return linear_noise(dtype, c);
  if (verb == "attention") return kScores + (c.fast ? kF16Attention : 0.0);
  if (verb == "rms_norm" || verb == "gated_act") return kSum;
  if (verb == "embed" && is_quantized(dtype)) return kSum;
  return kRounding;
}

// With what the same inputs would not show: angles made in float32, and keys and values that one side rounds.
double run_noise(std::string_view verb, DType dtype, const BoundConditions& c) {
  double noise = own_noise(verb, dtype, c);
  if (verb == "rope_append") noise += std::pow(c.n_positions * 0x1p-23, 2) / 128;
  if (verb == "attention" && c.f16_kv) noise += kF16Attention;
  return noise;
}

struct LayerStep {
  std::string_view name, verb;
};
constexpr LayerStep kLayer[] = {{"attn_norm", "rms_norm"}, {"qkv", "linear"},      {"rope_append", "rope_append"},
                                {"attn", "attention"},     {"attn_out", "linear"}, {"ffn_norm", "rms_norm"},
                                {"gate_up", "linear"},     {"act", "gated_act"},   {"ffn_out", "linear"}};

// Of a layer up to the step with this name, without it; of all for any other name.
double layer_noise(std::string_view until, const BoundConditions& c) {
  double noise = 0.0;
  for (const LayerStep& step : kLayer) {
    if (step.name == until) break;
    noise += run_noise(step.verb, c.coarsest, c);
  }
  return noise;
}

}  // namespace

BoundConditions bound_conditions(const TraceInfo& exact, const TraceInfo& other) {
  BoundConditions c;
  c.fast = other.numerics == "fast";
  c.f16_kv = exact.kv_dtype != "f32" || (!other.kv_dtype.empty() && other.kv_dtype != "f32");
  c.n_positions = static_cast<uint32_t>(exact.tokens.size());
  bool any_matrix = false;
  const auto noise = [&](DType dtype) { return linear_noise(dtype, c); };
  for (const TracedStep& step : exact.steps) {
    if (const auto layer = layer_of(step.name)) c.n_layers = std::max(c.n_layers, *layer + 1);
    const auto dtype = dtype_of(step.dtype);
    if (step.verb != "linear" || !dtype) continue;
    any_matrix = true;
    if (noise(*dtype) > noise(c.coarsest)) c.coarsest = *dtype;
  }
  if (!any_matrix)
    c.coarsest = *std::max_element(std::begin(kDTypes), std::end(kDTypes),
                                   [&](DType a, DType b) { return noise(a) < noise(b); });
  if (c.n_layers == 0) c.n_layers = kUnknownLayers;
  return c;
}

double own_bound(const TracedStep& step, const BoundConditions& c) {
  return own_noise(step.verb, dtype_of(step.dtype).value_or(c.coarsest), c);
}

double run_bound(const TracedStep& step, const BoundConditions& c) {
  const double own = run_noise(step.verb, dtype_of(step.dtype).value_or(c.coarsest), c);
  if (step.verb == "embed") return own;
  double before = run_noise("embed", c.coarsest, c);
  if (const auto layer = layer_of(step.name)) {
    const std::string_view name = std::string_view(step.name).substr(step.name.rfind('.') + 1);
    before += *layer * layer_noise({}, c) + layer_noise(name, c);
  } else {
    before += c.n_layers * layer_noise({}, c) + run_noise("rms_norm", DType::kF32, c);
  }
  return own + kPassedOn * before;
}

}  // namespace llorch
