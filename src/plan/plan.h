// A forward pass as data: a straight-line list of steps with unique addresses, checked once for all backends.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "plan/op.h"
#include "tensor/dtype.h"

namespace llorch {

// An activation buffer: float32 [rows, width].
struct Slot {
  std::string name;
  uint32_t width;
};

// A weight that the plan reads, by its canonical name in the checkpoint.
struct Weight {
  std::string name;
  DType dtype;
  std::vector<int64_t> shape;  // [rows, cols], or [n] for vectors
};

struct Step {
  std::string name;  // unique address: "layers.3.attn_out"
  Op op;
};

// Shapes of attention that all layers share.
struct Heads {
  uint32_t n_heads = 0;
  uint32_t n_kv_heads = 0;
  uint32_t head_dim = 0;  // even
};

// Rotation table [context, head_dim / 2], made once on the host in double precision and rounded once (model/rope.h).
struct RopeTable {
  uint32_t context = 0;
  uint32_t half_dim = 0;
  std::vector<float> cos, sin;
};

// A plan is immutable once built (plan/builder.h). The logits are its last step's output: [rows that want logits,
// vocab].
struct Plan {
  std::vector<Step> steps;
  std::vector<Slot> slots;
  std::vector<Weight> weights;
  uint32_t n_layers = 0;  // layers that own KV
  Heads heads;
  RopeTable rope;
  uint32_t vocab = 0;  // token ids are 0 .. vocab - 1

  const Slot& slot(SlotId id) const { return slots[static_cast<size_t>(id)]; }
  const Weight& weight(WeightId id) const { return weights[static_cast<size_t>(id)]; }
  SlotId logits() const { return output_slot(steps.back().op); }
  uint32_t context() const { return rope.context; }

  // Index of the step with this name, or -1.
  int find_step(std::string_view name) const;
};

// Of "layers.3.attn_out" 3; of steps that belong to no layer nothing.
std::optional<uint32_t> layer_of(std::string_view step);

// Throws Error naming step, expected and got if a slot is read before it is written, a width or a weight's shape does
// not fit, a name is not unique, or the last step does not write [.., vocab].
void validate(const Plan& plan);

// Bytes of all weights as they lie in a file.
size_t weight_bytes(const Plan& plan);

// One line a step: address, verb, shapes, dtypes.
std::string to_text(const Plan& plan);

// What a step reads and writes: "residual[288] += attn[288] x layers.0.attn_output.weight f16 [288, 288]".
std::string to_text(const Plan& plan, const Step& step);

}  // namespace llorch
