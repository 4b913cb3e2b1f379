#include "backend/reference/reference_backend.h"

#include <algorithm>
#include <limits>

#include "backend/memory.h"
#include "backend/open_weight.h"
#include "backend/reference/arithmetic.h"
#include "backend/slots.h"
#include "backend/step_faults.h"
#include "base/half.h"

namespace llorch {
namespace {

constexpr const char* kDevice = "scalar float32, one thread";

// The file's own bytes, copied.
class ReferenceWeights final : public PlacedWeights {
 public:
  ReferenceWeights(const Plan& plan, const WeightSource& source) {
    for (const Weight& weight : plan.weights) {
      const Tensor in = open_weight(source, weight);
      bytes_.emplace_back(in.bytes.begin(), in.bytes.end());
      tensors_.push_back({weight.name, weight.dtype, weight.shape, bytes_.back()});
      source.close(in);
    }
  }

  size_t bytes() const override {
    size_t total = 0;
    for (const auto& b : bytes_) total += b.size();
    return total;
  }
  void read_row(WeightId id, int64_t row, float* out) const override { llorch::read_row(tensor(id), row, out); }

  const Tensor& tensor(WeightId id) const { return tensors_[static_cast<size_t>(id)]; }
  std::vector<float> row(WeightId id, int64_t index) const {
    std::vector<float> values(static_cast<size_t>(tensor(id).cols()));
    read_row(id, index, values.data());
    return values;
  }

 private:
  std::vector<std::vector<std::byte>> bytes_;
  std::vector<Tensor> tensors_;
};

size_t kv_bytes(const Plan& plan, const CompileOptions& options) {
  return size_t{options.kv.n_pages} * kv_page_bytes(plan, {0, options.kv.page_size, DType::kF32});
}

// Keys and values as float32 after rounding to the KV dtype, [layer][page][position][kv head][head_dim].
class KvCache {
 public:
  KvCache(const Plan& plan, const CompileOptions& options)
      : kv_(options.kv), stride_(size_t{plan.heads.n_kv_heads} * plan.heads.head_dim) {
    const size_t n = size_t{plan.n_layers} * kv_.n_pages * kv_.page_size * stride_;
    const float fill = options.poison ? std::numeric_limits<float>::quiet_NaN() : 0.0f;
    k_.assign(n, fill);
    v_.assign(n, fill);
  }

  size_t index(uint32_t layer, uint32_t page, uint32_t offset) const {
    return ((size_t{layer} * kv_.n_pages + page) * kv_.page_size + offset) * stride_;
  }
  // The key or value of one head as it is read back.
  void round(const float* x, uint32_t head_dim, float* out) const {
    if (kv_.dtype == DType::kQ8_0)
      for (uint32_t d = 0; d < head_dim; d += kKvBlock)
        reference::round_to_q8(x + d, static_cast<int>(std::min(kKvBlock, head_dim - d)), out + d);
    else
      std::transform(x, x + head_dim, out,
                     [&](float v) { return kv_.dtype == DType::kF16 ? f16_to_f32(f32_to_f16_saturate(v)) : v; });
  }
  std::vector<float>& k() { return k_; }
  std::vector<float>& v() { return v_; }
  size_t bytes() const { return (k_.size() + v_.size()) * sizeof(float); }

 private:
  KvShape kv_;
  size_t stride_;
  std::vector<float> k_, v_;
};

class ReferenceProgram final : public Program {
 public:
  ReferenceProgram(const Plan& plan, std::shared_ptr<const ReferenceWeights> weights, const CompileOptions& options)
      : plan_(plan),
        options_(options),
        weights_(std::move(weights)),
        slots_(plan_, options_),
        kv_(allocate(kKvMemory, kv_bytes(plan, options), [this] { return KvCache(plan_, options_); })) {}

  std::span<const float> run(const Batch& batch) override { return trace(batch, StepSet(plan_.steps.size()), {}); }

  std::span<const float> trace(const Batch& batch, const StepSet& steps, const StepVisitor& visit) override {
    check_batch(batch, plan_, options_);
    batch_ = &batch;
    rows_ = batch.rows();
    if (options_.poison) slots_.poison();
    for (size_t i = 0; i < plan_.steps.size(); ++i) {
      const Op& op = plan_.steps[i].op;
      try {
        inject_faults(plan_.steps[i]);
        std::visit(*this, op);
      } catch (...) {
        rethrow_as_step_error(plan_, i, rows_, kDevice);
      }
      if (steps[i] && rows_ > 0) visit(i, output(op));
    }
    if (options_.poison) slots_.check_guards();
    return output(plan_.steps.back().op);
  }

  size_t bytes() const override { return slots_.bytes() + kv_.bytes(); }
  const Plan& plan() const override { return plan_; }
  const CompileOptions& options() const override { return options_; }
  const PlacedWeights& weights() const override { return *weights_; }

  void operator()(const Embed& op) {
    for (uint32_t r = 0; r < rows_; ++r) {
      const std::vector<float> values = weights_->row(op.table, batch_->tokens[r]);
      std::transform(values.begin(), values.end(), row(op.y, r), [&](float v) { return v * op.scale; });
    }
  }

  void operator()(const RmsNorm& op) {
    const std::vector<float> weight = weights_->row(op.weight, 0);
    for (uint32_t r = 0; r < rows_; ++r)
      reference::rms_norm(row(op.x, r), weight.data(), op.eps, static_cast<int>(width(op.x)), row(op.y, r));
  }

  void operator()(const Linear& op) {
    uint32_t column = 0;
    const std::vector<reference::Int16Block> quantized = quantized_rows(op);
    for (size_t i = 0; i < op.weights.size(); ++i) {
      const Tensor& w = weights_->tensor(op.weights[i]);
      const std::vector<float> bias = op.biases.empty() ? std::vector<float>() : weights_->row(op.biases[i], 0);
      for (int64_t n = 0; n < w.rows(); ++n, ++column)
        for (uint32_t r = 0; r < rows_; ++r) {
          float y = is_quantized(w.dtype) ? dot_blocks(w, n, &quantized[r * (width(op.x) / reference::kQuantBlock)])
                                          : dot_floats(w, n, row(op.x, r));
          if (!bias.empty()) y = y + bias[static_cast<size_t>(n)];
          float& out = row(op.y, r)[column];
          out = op.accumulate ? out + y : y;
        }
    }
  }

  void operator()(const RopeAppend& op) {
    const Heads& h = plan_.heads;
    const uint32_t half = h.head_dim / 2;
    for_each_row([&](uint32_t r, uint32_t position, const Batch::Sequence& s) {
      const float* cos = &plan_.rope.cos[size_t{position} * half];
      const float* sin = &plan_.rope.sin[size_t{position} * half];
      float* qkv = row(op.qkv, r);
      for (uint32_t head = 0; head < h.n_heads + h.n_kv_heads; ++head)
        for (uint32_t i = 0; i < half; ++i) {
          float* x = qkv + head * h.head_dim;
          if (op.pairs == RopePairs::kInterleaved)
            reference::rotate(x[2 * i], x[2 * i + 1], cos[i], sin[i]);
          else
            reference::rotate(x[i], x[i + half], cos[i], sin[i]);
        }
      const float* k = qkv + h.n_heads * h.head_dim;
      const float* v = k + h.n_kv_heads * h.head_dim;
      const size_t at = kv_index(op.layer, s, position);
      for (size_t d = 0; d < size_t{h.n_kv_heads} * h.head_dim; d += h.head_dim) {
        kv_.round(k + d, h.head_dim, &kv_.k()[at + d]);
        kv_.round(v + d, h.head_dim, &kv_.v()[at + d]);
      }
    });
  }

  void operator()(const Attention& op) {
    for_each_row([&](uint32_t r, uint32_t position, const Batch::Sequence& s) {
      for (uint32_t head = 0; head < plan_.heads.n_heads; ++head) attend(op, r, position, s, head);
    });
  }

  void operator()(const GatedAct& op) {
    const uint32_t n = width(op.y);
    for (uint32_t r = 0; r < rows_; ++r) {
      const float* gate = row(op.gate_up, r);
      for (uint32_t i = 0; i < n; ++i) row(op.y, r)[i] = silu_f32(gate[i]) * gate[n + i];
    }
  }

  void operator()(const GatherRows& op) {
    for (size_t i = 0; i < batch_->logit_rows.size(); ++i)
      std::copy_n(row(op.x, batch_->logit_rows[i]), width(op.x), row(op.y, static_cast<uint32_t>(i)));
    rows_ = static_cast<uint32_t>(batch_->logit_rows.size());
  }

 private:
  uint32_t width(SlotId id) const { return plan_.slot(id).width; }
  float* row(SlotId id, uint32_t r) { return slots_.data(id) + size_t{r} * width(id); }
  std::span<const float> output(const Op& op) const {
    return {slots_.data(output_slot(op)), size_t{rows_} * width(output_slot(op))};
  }

  template <typename F>
  void for_each_row(F f) {
    for (const Batch::Sequence& s : batch_->sequences)
      for (uint32_t i = 0; i < s.n_rows; ++i) f(s.first_row + i, s.first_position + i, s);
  }

  size_t kv_index(uint32_t layer, const Batch::Sequence& s, uint32_t position) const {
    const uint32_t page = batch_->pages[s.first_page + position / options_.kv.page_size];
    return kv_.index(layer, page, position % options_.kv.page_size);
  }

  // All rows of the input as int16 blocks, if a weight is block-quantized.
  std::vector<reference::Int16Block> quantized_rows(const Linear& op) {
    std::vector<reference::Int16Block> blocks;
    const auto needs_them = [&](WeightId id) { return is_quantized(weights_->tensor(id).dtype); };
    if (std::none_of(op.weights.begin(), op.weights.end(), needs_them)) return blocks;
    for (uint32_t r = 0; r < rows_; ++r)
      for (uint32_t k = 0; k < width(op.x); k += reference::kQuantBlock)
        blocks.push_back(reference::quantize(row(op.x, r) + k));
    return blocks;
  }

  // Dot product of weight row n with x, in the arithmetic of the weight's type.
  static float dot_floats(const Tensor& w, int64_t n, const float* x) {
    std::vector<float> values(static_cast<size_t>(w.cols()));
    read_row(w, n, values.data());
    return reference::dot(values.data(), x, static_cast<int>(w.cols()));
  }
  static float dot_blocks(const Tensor& w, int64_t n, const reference::Int16Block* x) {
    float sum = 0.0f;
    visit_block_type(w.dtype, [&]<typename Block>(const Block&) {
      const auto* blocks = reinterpret_cast<const Block*>(w.bytes.data()) + n * (w.cols() / Block::kElements);
      sum = reference::dot(blocks, x, static_cast<int>(w.cols()));
    });
    return sum;
  }

  void attend(const Attention& op, uint32_t r, uint32_t position, const Batch::Sequence& s, uint32_t head) {
    const Heads& h = plan_.heads;
    const size_t kv_head_offset = size_t{head / (h.n_heads / h.n_kv_heads)} * h.head_dim;
    const float* q = row(op.qkv, r) + head * h.head_dim;
    const uint32_t first = op.window != 0 && position + 1 > op.window ? position + 1 - op.window : 0;
    reference::Softmax state{.o = std::vector<float>(h.head_dim, 0.0f)};
    std::vector<float> scores;
    for (uint32_t chunk = first / reference::kChunk * reference::kChunk; chunk <= position;
         chunk += reference::kChunk) {
      const uint32_t begin = std::max(chunk, first);
      scores.clear();
      for (uint32_t p = begin; p <= position && p < chunk + reference::kChunk; ++p) {
        const float* k = &kv_.k()[kv_index(op.layer, s, p) + kv_head_offset];
        float sum = 0.0f;
        for (uint32_t d = 0; d < h.head_dim; ++d) sum = std::fma(q[d], k[d], sum);
        scores.push_back(sum * op.scale);
      }
      reference::merge_chunk(state, scores, static_cast<int>(begin), [&](int p) {
        return &kv_.v()[kv_index(op.layer, s, static_cast<uint32_t>(p)) + kv_head_offset];
      });
    }
    float* y = row(op.y, r) + head * h.head_dim;
    for (uint32_t d = 0; d < h.head_dim; ++d) y[d] = state.o[d] / state.l;
  }

  const Plan plan_;
  const CompileOptions options_;
  std::shared_ptr<const ReferenceWeights> weights_;
  Slots slots_;
  KvCache kv_;
  const Batch* batch_ = nullptr;
  uint32_t rows_ = 0;
};

class ReferenceBackend final : public Backend {
 public:
  BackendInfo info() const override { return {"reference", kDevice}; }
  Roof measure_roof() override { return {}; }  // speed is not its purpose
  std::vector<MemoryNeed> memory_needs(const Plan& plan, const CompileOptions& options) const override {
    std::vector<size_t> bytes;
    for (const Weight& weight : plan.weights) bytes.push_back(file_bytes(weight));
    std::vector<MemoryNeed> needs = weight_needs(plan, bytes);
    needs.push_back({MemoryKind::kActivations, "slots", SlotLayout(plan, options).bytes()});
    needs.push_back({MemoryKind::kKv, "KV pages, held as f32", kv_bytes(plan, options)});
    return needs;
  }
  std::shared_ptr<const PlacedWeights> place(const Plan& plan, const WeightSource& source) override {
    return allocate(kWeightMemory, weight_bytes(plan),
                    [&] { return std::make_shared<const ReferenceWeights>(plan, source); });
  }
  std::unique_ptr<Program> compile(const Plan& plan, std::shared_ptr<const PlacedWeights> weights,
                                   const CompileOptions& options) override {
    check_kv(options.kv);
    check_numerics(*this, options.numerics);
    auto own = std::dynamic_pointer_cast<const ReferenceWeights>(weights);
    LLORCH_CHECK(own != nullptr, "weights were placed by another backend");
    return std::make_unique<ReferenceProgram>(plan, std::move(own), options);
  }
};

}  // namespace

std::unique_ptr<Backend> make_reference_backend() { return std::make_unique<ReferenceBackend>(); }

}  // namespace llorch
