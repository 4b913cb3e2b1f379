// Whole Llama models for tests, small enough for the scalar reference: the fixture and random ones of mixed types.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "format/checkpoint.h"
#include "model/families.h"
#include "model/model.h"
#include "model/rope.h"
#include "random_model.h"

namespace llorch::test {

// A plan and where its weights come from, named for messages.
struct WholeModel {
  std::string name;
  Plan plan;
  WeightSource source;
};

inline WholeModel tiny_llama() {
  const auto checkpoint =
      std::make_shared<Checkpoint>(Checkpoint::open(LLORCH_SOURCE_DIR "/tests/fixtures/tiny-llama"));
  return {"tiny-llama",
          load_model(*checkpoint).plan,
          {.open = [checkpoint](const Weight& w) { return checkpoint->at(w.name); }, .close = [](const Tensor&) {}}};
}

struct RandomLlama {
  const char* name;
  std::vector<DType> dtypes;  // of the matrices, in turn
  RopePairs pairs;
  bool tied, bias;
  // By default more than one segment of a sum in every matrix, and a vocabulary that fills no group of rows.
  uint32_t hidden = 288, ffn = 320, n_heads = 9, n_kv_heads = 3, head_dim = 32, vocab = 301;
  // Of norm weights and biases: small scores, so that softmax weighs many positions, and so that the bounds of runs,
  // which are derived for scores of a mean square of 10, hold.
  float vector_scale = 0.11f;
};

// Two layers.
inline WholeModel random_llama(const RandomLlama& r) {
  ModelConfig c;
  c.architecture = "llama";
  c.hidden = r.hidden;
  c.ffn = r.ffn;
  c.n_layers = 2;
  c.n_heads = r.n_heads;
  c.n_kv_heads = r.n_kv_heads;
  c.head_dim = r.head_dim;
  c.vocab = r.vocab;
  c.context = 256;
  c.rms_eps = 1e-5f;
  c.rope_pairs = r.pairs;
  c.tied_embeddings = r.tied;

  struct Weights {
    std::map<std::string, Tensor> tensors;
    std::map<std::string, std::vector<std::byte>> bytes;
  };
  const auto made = std::make_shared<Weights>();
  Random random(11);
  size_t n_matrices = 0;
  const auto shape_of = [&](std::string_view name) -> std::vector<int64_t> {
    const auto has = [&](std::string_view part) { return name.find(part) != std::string_view::npos; };
    const int64_t kv = int64_t{c.n_kv_heads} * c.head_dim;
    const int64_t rows = has("attn_k") || has("attn_v")     ? kv
                         : has("ffn_gate") || has("ffn_up") ? c.ffn
                         : has("attn_") || has("ffn_")      ? c.hidden
                                                            : c.vocab;
    if (has("norm")) return {c.hidden};
    if (has("bias")) return {rows};
    return {rows, has("ffn_down") ? c.ffn : c.hidden};
  };
  const auto add = [&](const std::string& name) -> const Tensor& {
    const auto [it, is_new] = made->tensors.try_emplace(name, Tensor{name, DType::kF32, shape_of(name), {}});
    Tensor& tensor = it->second;
    if (!is_new) return tensor;
    std::vector<std::byte>& bytes = made->bytes[name];
    if (tensor.shape.size() == 2) {
      tensor.dtype = r.dtypes[n_matrices++ % r.dtypes.size()];
      bytes = random.tensor(tensor.dtype, static_cast<size_t>(tensor.shape[0]), static_cast<size_t>(tensor.shape[1]));
    } else {
      std::vector<float> values = random.values(static_cast<size_t>(tensor.shape[0]), Values::kPlain);
      for (float& v : values) v *= r.vector_scale;
      bytes.resize(values.size() * sizeof(float));
      std::memcpy(bytes.data(), values.data(), bytes.size());
    }
    tensor.bytes = bytes;
    return tensor;
  };
  const WeightCatalog catalog{.at = add, .contains = [&](const std::string& name) {
                                return r.bias && name.find("attn_") != std::string::npos &&
                                       name.find("bias") != std::string::npos;
                              }};
  Plan plan = llama_plan(c, catalog, make_rope_table(c, c.context, {}));
  return {r.name,
          std::move(plan),
          {.open = [made](const Weight& w) { return made->tensors.at(w.name); }, .close = [](const Tensor&) {}}};
}

// Every dtype, both kinds of rotary pairs, tied and untied heads, with biases and without.
inline std::vector<WholeModel> whole_models() {
  std::vector<WholeModel> models;
  models.push_back(tiny_llama());
  models.push_back(random_llama({"random f16, tied", {DType::kF16}, RopePairs::kSplitHalves, true, false}));
  models.push_back(random_llama({"random q4_0", {DType::kQ4_0}, RopePairs::kInterleaved, false, false}));
  models.push_back(random_llama(
      {"random of mixed types with biases",
       {DType::kQ8_0, DType::kF16, DType::kQ4_0, DType::kF32, DType::kQ4_1, DType::kBF16, DType::kQ5_0, DType::kQ5_1},
       RopePairs::kInterleaved,
       true,
       true}));
  models.push_back(random_llama({.name = "random of K-quants",
                                 .dtypes = {DType::kQ6_K, DType::kQ4_K, DType::kQ5_K},
                                 .pairs = RopePairs::kInterleaved,
                                 .tied = false,
                                 .bias = false,
                                 .hidden = 256,
                                 .ffn = 512,
                                 .n_heads = 8,
                                 .n_kv_heads = 2,
                                 .vector_scale = 0.035f}));  // minimums give rows a mean, and scores more
  return models;
}

inline std::vector<int32_t> random_tokens(Random& random, size_t n, uint32_t vocab) {
  std::vector<int32_t> tokens(n);
  for (int32_t& token : tokens) token = static_cast<int32_t>(random.below(vocab));
  return tokens;
}

// Tokens of one sequence that go through a program bit by bit, on pages taken from the end of a list.
class RunningSequence {
 public:
  RunningSequence(std::vector<int32_t> tokens, bool wants_logits)
      : tokens_(std::move(tokens)), wants_logits_(wants_logits) {}

  uint32_t left() const { return static_cast<uint32_t>(tokens_.size()) - done_; }
  uint32_t done() const { return done_; }

  // Adds the next n rows (as many as are left) to the batch; all of them want logits, or none.
  void add_rows(uint32_t n, uint32_t page_size, std::vector<uint32_t>& free_pages, Batch& batch) {
    n = std::min(n, left());
    if (n == 0) return;
    while (pages_.size() * page_size < done_ + n) {
      pages_.push_back(free_pages.back());
      free_pages.pop_back();
    }
    batch.sequences.push_back(
        {batch.rows(), n, done_, static_cast<uint32_t>(batch.pages.size()), static_cast<uint32_t>(pages_.size())});
    batch.pages.insert(batch.pages.end(), pages_.begin(), pages_.end());
    for (uint32_t i = 0; i < n; ++i) {
      if (wants_logits_) batch.logit_rows.push_back(batch.rows());
      batch.tokens.push_back(tokens_[done_++]);
    }
  }

 private:
  std::vector<int32_t> tokens_;
  bool wants_logits_;
  uint32_t done_ = 0;
  std::vector<uint32_t> pages_;
};

}  // namespace llorch::test
