// Shape, dtype and order checks of a plan: once, for all backends, before any device is touched.
#include <set>

#include "base/error.h"
#include "plan/plan.h"
#include "tensor/tensor.h"

namespace llorch {
namespace {

class Validator {
 public:
  explicit Validator(const Plan& plan) : plan_(plan), written_(plan.slots.size(), false), gathered_(written_) {}

  void run() {
    check_tables();
    std::set<std::string> names;
    for (const Step& step : plan_.steps) {
      step_ = &step;
      if (!names.insert(step.name).second) fail("{}: step name is not unique", step.name);
      if (const auto in = input_slot(step.op)) read(*in);
      std::visit(*this, step.op);
      write(output_slot(step.op));
    }
    if (plan_.steps.empty()) fail("plan has no steps");
    expect("logits width", plan_.vocab, width(plan_.logits()));
  }

  void operator()(const Embed& op) { expect_shape(op.table, {plan_.vocab, width(op.y)}); }

  void operator()(const RmsNorm& op) {
    expect("width", width(op.x), width(op.y));
    expect_shape(op.weight, {width(op.x)});
    if (!(op.eps >= 0.0f && op.eps < 1.0f)) fail("{}: eps {} is not in [0, 1)", step_->name, op.eps);
  }

  void operator()(const Linear& op) {
    if (op.x == op.y) fail("{}: linear reads and writes slot {}", step_->name, plan_.slot(op.x).name);
    if (op.accumulate) read(op.y);
    int64_t rows = 0;
    std::string shapes;
    for (size_t i = 0; i < op.weights.size(); ++i) {
      const Weight& weight = plan_.weight(op.weights[i]);
      if (weight.shape.size() != 2 || weight.shape[1] != width(op.x))
        fail("{}: weight {} has shape {}, expected [rows, {}] for slot {}", step_->name, weight.name,
             shape_string(weight.shape), width(op.x), plan_.slot(op.x).name);
      if (!op.biases.empty()) expect_shape(op.biases[i], {weight.shape[0]});
      rows += weight.shape[0];
      shapes += fmt::format("{}{} {}", i == 0 ? "" : ", ", weight.name, shape_string(weight.shape));
    }
    if (rows != width(op.y))
      fail("{}: stacked weight rows {} != slot width {} ({})", step_->name, rows, width(op.y), shapes);
    if (!op.biases.empty()) expect("biases", op.weights.size(), op.biases.size());
  }

  void operator()(const RopeAppend& op) {
    expect_attention(op.qkv, op.layer);
    expect("rope table half_dim", plan_.heads.head_dim / 2, plan_.rope.half_dim);
  }

  void operator()(const Attention& op) {
    expect_attention(op.qkv, op.layer);
    expect("output width", plan_.heads.n_heads * plan_.heads.head_dim, width(op.y));
  }

  void operator()(const GatedAct& op) { expect("gate|up width", 2 * width(op.y), width(op.gate_up)); }

  void operator()(const GatherRows& op) { expect("width", width(op.x), width(op.y)); }

 private:
  uint32_t width(SlotId id) const { return plan_.slot(id).width; }

  void expect(std::string_view what, uint64_t expected, uint64_t got) const {
    if (expected != got) fail("{}: {} expected {}, got {}", step_->name, what, expected, got);
  }

  void expect_shape(WeightId id, const std::vector<int64_t>& shape) const {
    const Weight& weight = plan_.weight(id);
    if (weight.shape != shape)
      fail("{}: weight {} expected shape {}, got {}", step_->name, weight.name, shape_string(shape),
           shape_string(weight.shape));
  }

  void expect_attention(SlotId qkv, uint32_t layer) const {
    const Heads& h = plan_.heads;
    expect("q|k|v width", uint64_t{h.n_heads + 2 * h.n_kv_heads} * h.head_dim, width(qkv));
    if (layer >= plan_.n_layers) fail("{}: layer {} of {}", step_->name, layer, plan_.n_layers);
    if (after_gather_) fail("{}: attention after gather_rows", step_->name);
  }

  void read(SlotId id) const {
    const auto i = static_cast<size_t>(id);
    if (!written_[i]) fail("{}: slot {} is read before it is written", step_->name, plan_.slots[i].name);
    if (gathered_[i] != after_gather_)
      fail("{}: slot {} holds all rows, expected the gathered rows", step_->name, plan_.slots[i].name);
  }

  void write(SlotId id) {
    if (std::holds_alternative<GatherRows>(step_->op)) after_gather_ = true;
    written_[static_cast<size_t>(id)] = true;
    gathered_[static_cast<size_t>(id)] = after_gather_;
  }

  void check_tables() const {
    const Heads& h = plan_.heads;
    if (plan_.n_layers > 0) {
      if (h.n_kv_heads == 0 || h.n_heads % h.n_kv_heads != 0)
        fail("plan: {} heads are no multiple of {} KV heads", h.n_heads, h.n_kv_heads);
      if (h.head_dim == 0 || h.head_dim % 2 != 0) fail("plan: head_dim {} is not even", h.head_dim);
    }
    const size_t entries = size_t{plan_.rope.context} * plan_.rope.half_dim;
    if (plan_.rope.cos.size() != entries || plan_.rope.sin.size() != entries)
      fail("plan: rope table expected {} entries, got {} and {}", entries, plan_.rope.cos.size(),
           plan_.rope.sin.size());
    for (const Weight& weight : plan_.weights) {
      if (weight.shape.empty() || weight.shape.size() > 2)
        fail("weight {}: expected one or two dimensions, got {}", weight.name, shape_string(weight.shape));
      for (const int64_t n : weight.shape)
        if (n <= 0 || n > INT32_MAX)
          fail("weight {}: shape {} is out of range", weight.name, shape_string(weight.shape));
      if (weight.shape.back() % static_cast<int64_t>(block_elements(weight.dtype)) != 0)
        fail("weight {}: {} columns are no multiple of the {} block of {}", weight.name, weight.shape.back(),
             to_string(weight.dtype), block_elements(weight.dtype));
    }
  }

  const Plan& plan_;
  const Step* step_ = nullptr;
  std::vector<bool> written_;
  std::vector<bool> gathered_;  // slot holds only the rows that want logits
  bool after_gather_ = false;
};

}  // namespace

void validate(const Plan& plan) { Validator(plan).run(); }

}  // namespace llorch
