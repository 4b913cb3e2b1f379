#include "model/config.h"

#include "base/error.h"
#include "model/read_config.h"

namespace llorch {
namespace {

void check_range(const Checkpoint& checkpoint, std::string_view what, uint64_t value, uint64_t low, uint64_t high) {
  if (value < low || value > high)
    fail("{}: {}: expected {} to {}, got {}", checkpoint.path().string(), what, low, high, value);
}

void check(const Checkpoint& checkpoint, const ModelConfig& c) {
  const std::string path = checkpoint.path().string();
  check_range(checkpoint, "hidden size", c.hidden, 1, 1 << 20);
  check_range(checkpoint, "feed-forward size", c.ffn, 1, 1 << 22);
  check_range(checkpoint, "layers", c.n_layers, 1, 4096);
  check_range(checkpoint, "attention heads", c.n_heads, 1, 4096);
  check_range(checkpoint, "KV heads", c.n_kv_heads, 1, c.n_heads);
  check_range(checkpoint, "head size", c.head_dim, 2, 1024);
  check_range(checkpoint, "vocabulary", c.vocab, 1, 1 << 24);
  check_range(checkpoint, "context length", c.context, 1, 1 << 24);
  if (c.n_heads % c.n_kv_heads != 0) fail("{}: {} heads are no multiple of {} KV heads", path, c.n_heads, c.n_kv_heads);
  if (c.head_dim % 2 != 0) fail("{}: head size {} is not even", path, c.head_dim);
  if (!(c.rope_theta >= 1.0 && c.rope_theta < 1e12)) fail("{}: rope theta {} is not in [1, 1e12)", path, c.rope_theta);
  const RopeScaling& s = c.rope_scaling;
  if (s.kind != RopeScaling::Kind::kNone && !(s.factor >= 1.0 && s.factor <= 1e6))
    fail("{}: rope scaling factor {} is not in [1, 1e6]", path, s.factor);
  const bool needs_original = s.kind == RopeScaling::Kind::kLlama3 || s.kind == RopeScaling::Kind::kYarn;
  if (needs_original && !(s.original_context >= 1.0 && s.original_context <= 1e9))
    fail("{}: rope scaling: original context {} is not in [1, 1e9]", path, s.original_context);
  if (s.kind == RopeScaling::Kind::kLlama3 && !(s.low_freq_factor > 0.0 && s.high_freq_factor > s.low_freq_factor))
    fail("{}: rope scaling: frequency factors {} and {} are not ascending", path, s.low_freq_factor,
         s.high_freq_factor);
  if (s.kind == RopeScaling::Kind::kYarn && !(s.beta_slow > 0.0 && s.beta_fast > s.beta_slow))
    fail("{}: rope scaling: betas {} and {} are not ascending", path, s.beta_slow, s.beta_fast);
  for (const int32_t id : c.eos)
    if (static_cast<uint32_t>(id) >= c.vocab)
      fail("{}: end-of-sequence id {} of a vocabulary of {}", path, id, c.vocab);
}

}  // namespace

ModelConfig read_config(const Checkpoint& checkpoint) {
  ModelConfig config = checkpoint.container() == Checkpoint::Container::kGguf ? read_gguf_config(checkpoint)
                                                                              : read_hf_config(checkpoint);
  const std::filesystem::path path = std::filesystem::weakly_canonical(checkpoint.path());
  config.name = path.has_filename() ? path.filename().string() : path.parent_path().filename().string();
  check(checkpoint, config);
  return config;
}

}  // namespace llorch
