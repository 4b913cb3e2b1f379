// The verbs of a forward pass. A step of a plan is one of these structs; each backend has an overload for each.
//
// All slots are float32 [rows, width]; what is rounded, and in which order sums are formed, is stated once in
// docs/numerics.md and done literally by backend/reference.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>
#include <variant>
#include <vector>

namespace llorch {

// Index into Plan::slots: an activation buffer of one batch.
enum class SlotId : uint32_t {};
// Index into Plan::weights.
enum class WeightId : uint32_t {};

enum class Activation : uint8_t { kSilu };

// Which elements of a head form a rotated pair: (2i, 2i+1), or (i, i + head_dim/2).
enum class RopePairs : uint8_t { kInterleaved, kSplitHalves };

// y[row] = table[token[row]] * scale
struct Embed {
  SlotId y;
  WeightId table;  // [vocab, width(y)]
  float scale = 1.0f;
};

// y[row] = x[row] / sqrt(mean(x[row]^2) + eps) * weight
struct RmsNorm {
  SlotId x, y;
  WeightId weight;  // [width(x)]
  float eps;
};

// y[row] = concat_i(weights[i] * x[row]) (+ concat(biases)) (+ y[row] when accumulate: the residual add).
// The row blocks are stacked in order: q|k|v, gate|up.
struct Linear {
  SlotId x, y;
  std::vector<WeightId> weights;  // each [rows_i, width(x)]
  std::vector<WeightId> biases;   // empty, or one [rows_i] for each weight
  bool accumulate = false;
};

// Rotates q and k of qkv[row] = q|k|v in place by the row's position, then appends k and v, rounded to the KV dtype, to
// the row's sequence at that position.
struct RopeAppend {
  SlotId qkv;  // [(n_heads + 2 * n_kv_heads) * head_dim]
  uint32_t layer;
  RopePairs pairs;
};

// y[row] = softmax(q . K^T * scale) . V over the row's own sequence, positions max(0, p - window + 1) .. p where p is
// the row's position.
struct Attention {
  SlotId qkv, y;  // y: [n_heads * head_dim]
  uint32_t layer;
  float scale;
  uint32_t window = 0;  // 0: no window
};

// y[row] = activation(gate) * up, with gate_up[row] = gate|up
struct GatedAct {
  SlotId gate_up, y;
  Activation activation = Activation::kSilu;
};

// y = the rows of x that want logits, in batch order. From here on a step sees only those rows.
struct GatherRows {
  SlotId x, y;
};

using Op = std::variant<Embed, RmsNorm, Linear, RopeAppend, Attention, GatedAct, GatherRows>;

// "embed", "rms_norm", "linear", ...
std::string_view verb(const Op& op);

// The slot that a step writes (RopeAppend: the slot it rotates in place).
SlotId output_slot(const Op& op);

// The slot that a step reads, if any. An accumulating Linear reads its output slot too.
std::optional<SlotId> input_slot(const Op& op);

}  // namespace llorch
