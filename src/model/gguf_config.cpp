// ModelConfig from GGUF metadata. Keys: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
#include "base/error.h"
#include "model/read_config.h"

namespace llorch {
namespace {

uint32_t require_u32(const GgufMetadata& metadata, const std::string& key) {
  const uint64_t value = metadata.require_u64(key);
  if (value > UINT32_MAX) fail("{}: {}: expected at most 2^32 - 1, got {}", metadata.file().string(), key, value);
  return static_cast<uint32_t>(value);
}

RopeScaling read_rope_scaling(const GgufMetadata& metadata, const std::string& prefix) {
  RopeScaling s;
  if (metadata.contains(prefix + "scale_linear"))
    fail("{}: {}scale_linear: this old form is not supported, expected {}scaling.type and .factor",
         metadata.file().string(), prefix, prefix);
  const std::string_view kind = metadata.str(prefix + "scaling.type").value_or("none");
  if (kind == "none") return s;
  s.factor = metadata.require_f64(prefix + "scaling.factor");
  if (kind == "linear") {
    s.kind = RopeScaling::Kind::kLinear;
  } else if (kind == "yarn") {
    s.kind = RopeScaling::Kind::kYarn;
    s.original_context = static_cast<double>(metadata.require_u64(prefix + "scaling.original_context_length"));
    s.attention_factor = metadata.f64(prefix + "scaling.attn_factor").value_or(0.0);
  } else {
    fail("{}: {}scaling.type: expected none, linear or yarn, got \"{}\"", metadata.file().string(), prefix, kind);
  }
  return s;
}

}  // namespace

ModelConfig read_gguf_config(const Checkpoint& checkpoint) {
  const GgufMetadata& m = checkpoint.metadata();
  ModelConfig c;
  c.architecture = m.require_str("general.architecture");
  if (c.architecture != "llama")
    fail("{}: general.architecture: expected \"llama\", got \"{}\"", m.file().string(), c.architecture);
  c.hidden = require_u32(m, "llama.embedding_length");
  c.ffn = require_u32(m, "llama.feed_forward_length");
  c.n_layers = require_u32(m, "llama.block_count");
  c.n_heads = require_u32(m, "llama.attention.head_count");
  c.n_kv_heads =
      m.contains("llama.attention.head_count_kv") ? require_u32(m, "llama.attention.head_count_kv") : c.n_heads;
  c.head_dim = m.contains("llama.attention.key_length") ? require_u32(m, "llama.attention.key_length")
               : c.n_heads == 0                         ? 0
                                                        : c.hidden / c.n_heads;
  if (const auto dims = m.u64("llama.rope.dimension_count"); dims && *dims != c.head_dim)
    fail("{}: llama.rope.dimension_count: expected the head size {}, got {}", m.file().string(), c.head_dim, *dims);
  c.context = require_u32(m, "llama.context_length");
  c.rms_eps = static_cast<float>(m.require_f64("llama.attention.layer_norm_rms_epsilon"));
  c.rope_theta = m.f64("llama.rope.freq_base").value_or(10000.0);
  c.rope_scaling = read_rope_scaling(m, "llama.rope.");
  c.rope_pairs = RopePairs::kInterleaved;  // converters to this container permute the rows of q and k
  c.vocab = static_cast<uint32_t>(checkpoint.at("token_embd.weight").rows());
  c.tied_embeddings = checkpoint.find("output.weight") == nullptr;
  for (const char* key : {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"})
    if (const auto id = m.u64(key); id && *id < c.vocab) c.eos.push_back(static_cast<int32_t>(*id));
  return c;
}

}  // namespace llorch
