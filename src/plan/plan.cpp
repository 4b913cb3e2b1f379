#include "plan/plan.h"

#include <fmt/format.h>

#include <charconv>

#include "tensor/tensor.h"

namespace llorch {

int Plan::find_step(std::string_view name) const {
  for (size_t i = 0; i < steps.size(); ++i)
    if (steps[i].name == name) return static_cast<int>(i);
  return -1;
}

std::optional<uint32_t> layer_of(std::string_view step) {
  constexpr std::string_view kPrefix = "layers.";
  if (step.substr(0, kPrefix.size()) != kPrefix) return std::nullopt;
  step.remove_prefix(kPrefix.size());
  uint32_t layer = 0;
  const auto [end, error] = std::from_chars(step.data(), step.data() + step.size(), layer);
  if (error != std::errc() || end == step.data() + step.size() || *end != '.') return std::nullopt;
  return layer;
}

size_t weight_bytes(const Plan& plan) {
  size_t total = 0;
  for (const Weight& weight : plan.weights)
    total += static_cast<size_t>(weight.shape.size() < 2 ? 1 : weight.shape[0]) *
             row_bytes(weight.dtype, weight.shape.back());
  return total;
}

namespace {

// The right-hand side of a step's line.
struct OpText {
  const Plan& plan;

  std::string slot(SlotId id) const { return fmt::format("{}[{}]", plan.slot(id).name, plan.slot(id).width); }
  std::string weight(WeightId id) const {
    const Weight& w = plan.weight(id);
    return fmt::format("{} {} {}", w.name, to_string(w.dtype), shape_string(w.shape));
  }

  std::string operator()(const Embed& op) const {
    return fmt::format("{} = {}{}", slot(op.y), weight(op.table),
                       op.scale == 1.0f ? "" : fmt::format(" * {}", op.scale));
  }
  std::string operator()(const RmsNorm& op) const {
    return fmt::format("{} = {}, {}, eps {}", slot(op.y), slot(op.x), weight(op.weight), op.eps);
  }
  std::string operator()(const Linear& op) const {
    std::string text = fmt::format("{} {} {}", slot(op.y), op.accumulate ? "+=" : "=", slot(op.x));
    for (size_t i = 0; i < op.weights.size(); ++i) {
      text += fmt::format(" {} {}", i == 0 ? "x" : "|", weight(op.weights[i]));
      if (!op.biases.empty()) text += fmt::format(" + {}", weight(op.biases[i]));
    }
    return text;
  }
  std::string operator()(const RopeAppend& op) const {
    return fmt::format("{}, kv layer {}, pairs {}", slot(op.qkv), op.layer,
                       op.pairs == RopePairs::kInterleaved ? "interleaved" : "split halves");
  }
  std::string operator()(const Attention& op) const {
    return fmt::format("{} = {}, kv layer {}, {} heads on {}, scale {}{}", slot(op.y), slot(op.qkv), op.layer,
                       plan.heads.n_heads, plan.heads.n_kv_heads, op.scale,
                       op.window == 0 ? "" : fmt::format(", window {}", op.window));
  }
  std::string operator()(const GatedAct& op) const {
    return fmt::format("{} = silu(gate) * up of {}", slot(op.y), slot(op.gate_up));
  }
  std::string operator()(const GatherRows& op) const {
    return fmt::format("{} = {}, rows that want logits", slot(op.y), slot(op.x));
  }
};

}  // namespace

std::string to_text(const Plan& plan, const Step& step) { return std::visit(OpText{plan}, step.op); }

std::string to_text(const Plan& plan) {
  std::string text = fmt::format(
      "{} layers, {} heads of {} on {} KV heads, vocabulary {}, context {}; slots are f32 [rows, width]\n",
      plan.n_layers, plan.heads.n_heads, plan.heads.head_dim, plan.heads.n_kv_heads, plan.vocab, plan.context());
  for (const Step& step : plan.steps)
    text += fmt::format("{:<24} {:<12} {}\n", step.name, verb(step.op), to_text(plan, step));
  return text;
}

}  // namespace llorch
