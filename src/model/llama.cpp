// The forward pass of Llama as a plan.
#include <fmt/format.h>

#include <cmath>

#include "base/error.h"
#include "model/families.h"
#include "plan/builder.h"

namespace llorch {
namespace {

// Names and slots of one forward pass.
class LlamaWriter {
 public:
  LlamaWriter(const ModelConfig& config, const WeightCatalog& weights, RopeTable rope)
      : c_(config),
        catalog_(weights),
        b_(config.vocab, config.n_layers, {config.n_heads, config.n_kv_heads, config.head_dim}, std::move(rope)) {}

  Plan write() && {
    const uint32_t q = c_.n_heads * c_.head_dim, kv = c_.n_kv_heads * c_.head_dim;
    const SlotId x = b_.slot("residual", c_.hidden), normed = b_.slot("normed", c_.hidden);
    const SlotId qkv = b_.slot("qkv", q + 2 * kv), attn = b_.slot("attn", q);
    const SlotId gate_up = b_.slot("gate_up", 2 * c_.ffn), act = b_.slot("act", c_.ffn);

    b_.step("embed", Embed{x, weight("token_embd")});
    for (uint32_t i = 0; i < c_.n_layers; ++i) {
      const auto name = [&](std::string_view part) { return fmt::format("layers.{}.{}", i, part); };
      const float scale = 1.0f / std::sqrt(static_cast<float>(c_.head_dim));
      b_.step(name("attn_norm"), RmsNorm{x, normed, weight(name("attn_norm")), c_.rms_eps});
      b_.step(name("qkv"), linear(normed, qkv, {name("attn_q"), name("attn_k"), name("attn_v")}));
      b_.step(name("rope_append"), RopeAppend{qkv, i, c_.rope_pairs});
      b_.step(name("attn"), Attention{qkv, attn, i, scale});
      b_.step(name("attn_out"), linear(attn, x, {name("attn_output")}, true));
      b_.step(name("ffn_norm"), RmsNorm{x, normed, weight(name("ffn_norm")), c_.rms_eps});
      b_.step(name("gate_up"), linear(normed, gate_up, {name("ffn_gate"), name("ffn_up")}));
      b_.step(name("act"), GatedAct{gate_up, act, Activation::kSilu});
      b_.step(name("ffn_out"), linear(act, x, {name("ffn_down")}, true));
    }
    const SlotId last = b_.slot("last", c_.hidden), last_normed = b_.slot("last_normed", c_.hidden);
    const SlotId logits = b_.slot("logits", c_.vocab);
    b_.step("gather", GatherRows{x, last});
    b_.step("output_norm", RmsNorm{last, last_normed, weight("output_norm"), c_.rms_eps});
    b_.step("logits", linear(last_normed, logits, {c_.tied_embeddings ? "token_embd" : "output"}));
    return std::move(b_).build();
  }

 private:
  WeightId weight(const std::string& stem, const char* kind = "weight") {
    const Tensor& tensor = catalog_.at(fmt::format("{}.{}", stem, kind));
    return b_.weight(tensor.name, tensor.dtype, tensor.shape);
  }

  // Biases come along when the checkpoint has them: for all of the stacked weights or for none.
  Linear linear(SlotId in, SlotId out, const std::vector<std::string>& stems, bool accumulate = false) {
    Linear op{in, out, {}, {}, accumulate};
    for (const std::string& stem : stems) {
      op.weights.push_back(weight(stem));
      if (catalog_.contains(stem + ".bias")) op.biases.push_back(weight(stem, "bias"));
    }
    if (!op.biases.empty() && op.biases.size() != op.weights.size())
      fail("{}: {} of {} stacked weights have a bias, expected all or none", stems.front(), op.biases.size(),
           op.weights.size());
    return op;
  }

  const ModelConfig& c_;
  const WeightCatalog& catalog_;
  PlanBuilder b_;
};

}  // namespace

Plan llama_plan(const ModelConfig& config, const WeightCatalog& weights, RopeTable rope) {
  return LlamaWriter(config, weights, std::move(rope)).write();
}

}  // namespace llorch
