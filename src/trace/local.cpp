#include "trace/local.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <numeric>
#include <optional>
#include <utility>

#include "backend/slots.h"
#include "base/error.h"
#include "plan/builder.h"
#include "trace/diff.h"

namespace llorch {
namespace {

// One step as a plan of its own, with the rows that it is fed.
struct LocalStep {
  Plan plan;
  SequenceRun run;
  std::map<std::string, std::span<const float>> tables;  // input weights by name
  std::vector<float> zeros;                              // of the last table
  size_t step = 0;                                       // the one that is looked at, in `plan`
};

// The plan's own weights and the tables of inputs.
WeightSource with_tables(const LocalStep& local, const WeightSource& source) {
  return {.open =
              [&](const Weight& w) {
                const auto it = local.tables.find(w.name);
                return it == local.tables.end() ? source.open(w)
                                                : Tensor{w.name, w.dtype, w.shape, std::as_bytes(it->second)};
              },
          .close =
              [&](const Tensor& tensor) {
                if (local.tables.count(tensor.name) == 0) source.close(tensor);
              }};
}

// Rotates by nothing.
RopeTable identity(uint32_t context, uint32_t half_dim) {
  const size_t n = size_t{context} * half_dim;
  return {context, half_dim, std::vector<float>(n, 1.0f), std::vector<float>(n, 0.0f)};
}

RopeTable first_positions(const RopeTable& rope, uint32_t n) {
  const auto size = static_cast<ptrdiff_t>(size_t{n} * rope.half_dim);
  return {n, rope.half_dim, {rope.cos.begin(), rope.cos.begin() + size}, {rope.sin.begin(), rope.sin.begin() + size}};
}

// Writes the plan of step `index`; one overload for each verb.
class LocalWriter {
 public:
  LocalWriter(const LocalInputs& inputs, size_t index)
      : in_(inputs),
        plan_(inputs.plan),
        index_(index),
        is_gathered_(gathered_steps(plan_)[index] && !std::holds_alternative<GatherRows>(plan_.steps[index].op)) {}

  LocalStep write() && {
    std::visit(*this, plan_.steps[index_].op);
    local_.plan = std::move(*builder_).build();
    local_.step = static_cast<size_t>(local_.plan.find_step(plan_.steps[index_].name));
    return std::move(local_);
  }

  // Its input is the tokens. The table serves as the matrix that the end of a plan needs, too.
  void operator()(const Embed& op) {
    local_.run = in_.run;
    local_.run.pages.clear();
    builder_.emplace(plan_.vocab, 0, plan_.heads, unrotated());
    const SlotId y = slot(op.y), last = slot(op.y), end = builder_->slot("end", plan_.vocab);
    step(Embed{y, weight(op.table), op.scale});
    builder_->step("end rows", GatherRows{y, last});
    builder_->step("end", Linear{last, end, {weight(op.table)}, {}, false});
  }
  void operator()(const RmsNorm& op) {
    begin(0, unrotated());
    step(RmsNorm{input(op.x), slot(op.y), weight(op.weight), op.eps});
    end();
  }
  void operator()(const Linear& op) {
    begin(0, unrotated());
    const SlotId x = input(op.x);
    step(Linear{x, op.accumulate ? input(op.y) : slot(op.y), weights(op.weights), weights(op.biases), op.accumulate});
    end();
  }
  void operator()(const RopeAppend& op) {
    begin(plan_.n_layers, first_positions(plan_.rope, n_tokens()));
    step(RopeAppend{input(op.qkv), op.layer, op.pairs});
    end();
  }
  void operator()(const Attention& op) {
    begin(plan_.n_layers, unrotated());
    const SlotId qkv = input(op.qkv);
    builder_->step("append", RopeAppend{qkv, op.layer, RopePairs::kSplitHalves});
    step(Attention{qkv, slot(op.y), op.layer, op.scale, op.window});
    end();
  }
  void operator()(const GatedAct& op) {
    begin(0, unrotated());
    step(GatedAct{input(op.gate_up), slot(op.y), op.activation});
    end();
  }
  void operator()(const GatherRows& op) {
    begin(0, unrotated());
    step(GatherRows{input(op.x), slot(op.y)});
    end();
  }

 private:
  uint32_t n_tokens() const { return static_cast<uint32_t>(in_.run.tokens.size()); }
  RopeTable unrotated() const { return identity(n_tokens(), plan_.heads.head_dim / 2); }

  // Row i of an input is token i. After GatherRows each batch has the one row that wants logits.
  void begin(uint32_t n_layers, RopeTable rope) {
    const uint32_t n = is_gathered_ ? in_.run.n_logit_rows() : n_tokens();
    local_.run.tokens.resize(n);
    std::iota(local_.run.tokens.begin(), local_.run.tokens.end(), 0);
    local_.run.n_prompt = is_gathered_ ? 1 : in_.run.n_prompt;
    local_.run.chunk = in_.run.chunk;
    builder_.emplace(n, n_layers, plan_.heads, std::move(rope));
  }

  // A plan ends in rows as wide as the vocabulary, which is small here.
  void end() {
    const uint32_t n = static_cast<uint32_t>(local_.run.tokens.size());
    local_.zeros.assign(size_t{n} * n, 0.0f);
    builder_->step("end", Embed{builder_->slot("end", n), table("end table", local_.zeros, n)});
  }

  void step(Op op) { builder_->step(plan_.steps[index_].name, std::move(op)); }
  SlotId slot(SlotId id) { return builder_->slot(plan_.slot(id).name, plan_.slot(id).width); }
  WeightId weight(WeightId id) {
    const Weight& w = plan_.weight(id);
    return builder_->weight(w.name, w.dtype, w.shape);
  }
  std::vector<WeightId> weights(const std::vector<WeightId>& ids) {
    std::vector<WeightId> out;
    out.reserve(ids.size());
    for (const WeightId id : ids) out.push_back(weight(id));
    return out;
  }
  WeightId table(const std::string& name, std::span<const float> values, uint32_t width) {
    local_.tables.emplace(name, values);
    return builder_->weight(name, DType::kF32, {static_cast<int64_t>(values.size() / width), int64_t{width}});
  }

  // A slot that holds what it held on b before the step.
  SlotId input(SlotId id) {
    size_t writer = index_;
    do {
      LLORCH_CHECK(writer > 0, "{}: slot {} is never written", plan_.steps[index_].name, plan_.slot(id).name);
      --writer;
    } while (output_slot(plan_.steps[writer].op) != id);
    const SlotId own = slot(id);
    const std::string name = "input " + plan_.slot(id).name;
    builder_->step(name, Embed{own, table(name, in_.truth.steps[writer].values, plan_.slot(id).width)});
    return own;
  }

  const LocalInputs& in_;
  const Plan& plan_;
  size_t index_;
  bool is_gathered_;  // it sees only the rows that want logits
  std::optional<PlanBuilder> builder_;
  LocalStep local_;
};

std::vector<float> output_of(Backend& backend, Numerics numerics, const LocalStep& local, const LocalInputs& inputs) {
  CompileOptions options = inputs.options;
  options.numerics = numerics;
  const auto n = static_cast<uint32_t>(local.run.tokens.size());
  options.kv.n_pages = (n + options.kv.page_size - 1) / options.kv.page_size;
  options.max_rows = std::min(options.max_rows, n);
  const auto weights = backend.place(local.plan, with_tables(local, inputs.source));
  const auto program = backend.compile(local.plan, weights, options);
  StepSet shown(local.plan.steps.size());
  shown[local.step] = true;
  return record_sequence(*program, local.run, shown).steps[local.step].values;
}

}  // namespace

std::vector<StepDiff> diff_local(Backend& a, Backend& b, const LocalInputs& inputs, const StepSet& steps) {
  const Plan& plan = inputs.plan;
  std::vector<StepDiff> diffs;
  for (size_t i = 0; i < plan.steps.size(); ++i) {
    if (!steps[i]) continue;
    const Step& step = plan.steps[i];
    const Recording::Rows& truth = inputs.truth.steps.at(i);
    const LocalStep local = LocalWriter(inputs, i).write();
    const std::vector<float> of_a = output_of(a, inputs.numerics, local, inputs);
    // Rotating by nothing makes NaN of an infinity: there b is asked again.
    const bool asks_b = std::holds_alternative<Attention>(step.op);
    const std::vector<float> of_b = asks_b ? output_of(b, Numerics::kExact, local, inputs) : std::vector<float>();
    const TracedStep what = traced_step(plan, i);
    diffs.push_back(diff_step({.what = what,
                               .positions = truth.positions,
                               .width = plan.slot(output_slot(step.op)).width,
                               .a = of_a,
                               .b = asks_b ? of_b : truth.values,
                               .is_logits = i + 1 == plan.steps.size(),
                               .bound = inputs.bounds == nullptr ? 0.0 : own_bound(what, *inputs.bounds)}));
  }
  return diffs;
}

}  // namespace llorch
