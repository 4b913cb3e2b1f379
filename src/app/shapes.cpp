#include "app/shapes.h"

#include <fmt/ranges.h>

#include <cstring>
#include <map>
#include <memory>
#include <thread>

#include "base/error.h"
#include "model/families.h"
#include "model/rope.h"
#include "tensor/blocks.h"

namespace llorch {
namespace {

struct Shape {
  uint32_t hidden, ffn, layers, heads, kv_heads, head_dim, vocab;
  double theta;
  bool tied;
};

const std::map<std::string, Shape>& shapes() {
  static const std::map<std::string, Shape> kShapes = {
      {"tinyllama-1.1b", {2048, 5632, 22, 32, 4, 64, 32000, 1e4, false}},
      {"llama-3-8b", {4096, 14336, 32, 32, 8, 128, 128256, 5e5, false}},
      {"llama-3.2-1b", {2048, 8192, 16, 32, 8, 64, 128256, 5e5, true}},
      {"smollm2-135m", {576, 1536, 30, 9, 3, 64, 49152, 1e5, true}},
      {"tiny", {64, 160, 2, 4, 2, 16, 300, 1e4, true}},
  };
  return kShapes;
}

// A generator that is fast rather than good (Vigna's xorshift64*).
class FastRandom {
 public:
  explicit FastRandom(uint64_t seed) : state_(seed * 0x9e3779b97f4a7c15ull + 1) {}
  uint64_t next() {
    state_ ^= state_ >> 12;
    state_ ^= state_ << 25;
    state_ ^= state_ >> 27;
    return state_ * 0x2545f4914f6cdd1dull;
  }

 private:
  uint64_t state_;
};

// Sign and mantissa random, exponent one of four: magnitudes from 2^-8 to 2^-4.
uint16_t small_f16(uint64_t r) { return static_cast<uint16_t>((r & 0x83ff) | ((7 + ((r >> 10) & 3)) << 10)); }
uint16_t small_bf16(uint64_t r) { return static_cast<uint16_t>((r & 0x807f) | ((119 + ((r >> 8) & 3)) << 7)); }

void fill_block(DType dtype, FastRandom& random, std::byte* out) {
  const auto put = [&](const auto& value) { std::memcpy(out, &value, sizeof value); };
  if (dtype == DType::kF32) put(bf16_to_f32(small_bf16(random.next())));
  if (dtype == DType::kF16) put(small_f16(random.next()));
  if (dtype == DType::kBF16) put(small_bf16(random.next()));
  visit_block_type(dtype, [&](auto block) {
    for (size_t i = 0; i < sizeof block; i += 8) {
      const uint64_t bits = random.next();
      std::memcpy(reinterpret_cast<std::byte*>(&block) + i, &bits, std::min<size_t>(8, sizeof block - i));
    }
    constexpr bool kSuperblock = block.kElements == 256;  // its scales have integer factors of up to 63 or 128
    const uint64_t exponent = dtype == DType::kQ8_0 || kSuperblock ? 2 : 6;
    block.d = static_cast<uint16_t>(exponent << 10 | (random.next() & 0x3ff));
    if constexpr (requires { block.m; }) block.m = small_f16(random.next());
    if constexpr (requires { block.dmin; }) block.dmin = static_cast<uint16_t>(2 << 10 | (random.next() & 0x3ff));
    put(block);
  });
}

void fill_random(DType dtype, uint64_t seed, std::vector<std::byte>& bytes) {
  const size_t block = block_bytes(dtype), n_blocks = bytes.size() / block;
  const size_t n_threads = n_blocks < 4096 ? 1 : std::max(1u, std::thread::hardware_concurrency());
  std::vector<std::thread> threads;
  for (size_t t = 0; t < n_threads; ++t)
    threads.emplace_back([&, t] {
      FastRandom random(seed * 64 + t);
      for (size_t i = n_blocks * t / n_threads; i < n_blocks * (t + 1) / n_threads; ++i)
        fill_block(dtype, random, bytes.data() + i * block);
    });
  for (std::thread& thread : threads) thread.join();
}

constexpr std::string_view kMix = "q4_k_m";

DType mixed_type(const ModelConfig& c, const Tensor& tensor) {
  const auto has = [&](std::string_view part) { return tensor.name.find(part) != std::string::npos; };
  bool more_bits = tensor.name == "output.weight" || (c.tied_embeddings && has("token_embd"));
  if (has("attn_v") || has("ffn_down")) {
    const auto layer = static_cast<uint32_t>(std::stoul(tensor.name.substr(std::string_view("layers.").size())));
    const uint32_t eighth = c.n_layers / 8;
    more_bits = layer < eighth || layer >= 7 * c.n_layers / 8 || (layer - eighth) % 3 == 2;
  }
  if (tensor.cols() % 256 != 0) return more_bits ? DType::kQ8_0 : DType::kQ5_0;
  return more_bits ? DType::kQ6_K : DType::kQ4_K;
}

DType matrix_type(const ModelConfig& c, const std::string& types, const Tensor& tensor) {
  if (types == kMix) return mixed_type(c, tensor);
  std::vector<std::string_view> names;
  for (const DType dtype : kDTypes) {
    if (to_string(dtype) == types) return dtype;
    names.push_back(to_string(dtype));
  }
  fail("--dtype {}: expected one of {}, {}", types, fmt::join(names, ", "), kMix);
}

}  // namespace

std::vector<std::string> shape_names() {
  std::vector<std::string> names;
  for (const auto& [name, shape] : shapes()) names.push_back(name);
  return names;
}

ModelConfig shape_config(const std::string& name) {
  const auto it = shapes().find(name);
  if (it == shapes().end()) fail("shape \"{}\" is unknown; known: {}", name, fmt::join(shape_names(), ", "));
  const Shape& s = it->second;
  ModelConfig c;
  c.architecture = "llama";
  c.name = name;
  c.hidden = s.hidden;
  c.ffn = s.ffn;
  c.n_layers = s.layers;
  c.n_heads = s.heads;
  c.n_kv_heads = s.kv_heads;
  c.head_dim = s.head_dim;
  c.vocab = s.vocab;
  c.context = 8192;
  c.rms_eps = 1e-5f;
  c.rope_theta = s.theta;
  c.tied_embeddings = s.tied;
  return c;
}

Plan shape_plan(const ModelConfig& c, const std::string& types, uint32_t context) {
  const auto matrix_shape = [&](const std::string& name) -> std::vector<int64_t> {
    const auto has = [&](std::string_view part) { return name.find(part) != std::string::npos; };
    const int64_t q = int64_t{c.n_heads} * c.head_dim, kv = int64_t{c.n_kv_heads} * c.head_dim;
    if (has("norm")) return {c.hidden};
    if (has("attn_q")) return {q, c.hidden};
    if (has("attn_k") || has("attn_v")) return {kv, c.hidden};
    if (has("attn_output")) return {c.hidden, q};
    if (has("ffn_down")) return {c.hidden, c.ffn};
    if (has("ffn_")) return {c.ffn, c.hidden};
    return {c.vocab, c.hidden};  // token_embd, output
  };
  std::map<std::string, Tensor> tensors;
  const WeightCatalog catalog{
      .at = [&](const std::string& name) -> const Tensor& {
        Tensor tensor{name, DType::kF32, matrix_shape(name), {}};
        if (tensor.shape.size() == 2) tensor.dtype = matrix_type(c, types, tensor);
        return tensors.insert_or_assign(name, std::move(tensor)).first->second;
      },
      .contains = [](const std::string&) { return false; },
  };
  return llama_plan(c, catalog, make_rope_table(c, context, {}));
}

WeightSource random_weights(uint64_t seed) {
  const auto bytes = std::make_shared<std::vector<std::byte>>();  // of the open tensor; both functions share it
  const auto count = std::make_shared<uint64_t>(seed);
  return {
      .open =
          [bytes, count](const Weight& w) {
            const size_t rows = w.shape.size() < 2 ? 1 : static_cast<size_t>(w.shape[0]);
            bytes->assign(rows * row_bytes(w.dtype, w.shape.back()), std::byte{});
            if (w.shape.size() == 1) {
              std::vector<float> ones(static_cast<size_t>(w.shape[0]), 1.0f);
              std::memcpy(bytes->data(), ones.data(), bytes->size());
            } else {
              fill_random(w.dtype, ++*count, *bytes);
            }
            return Tensor{w.name, w.dtype, w.shape, *bytes};
          },
      .close = [bytes](const Tensor&) { std::vector<std::byte>().swap(*bytes); },
  };
}

}  // namespace llorch
