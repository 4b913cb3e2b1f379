// What a checkpoint says about its model, whichever container it comes in.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "format/checkpoint.h"
#include "plan/op.h"

namespace llorch {

// How rotation frequencies are stretched for long contexts.
struct RopeScaling {
  enum class Kind : uint8_t { kNone, kLinear, kLlama3, kYarn };
  Kind kind = Kind::kNone;
  double factor = 1.0;
  double original_context = 0.0;  // Llama 3, YaRN
  double low_freq_factor = 1.0;   // Llama 3
  double high_freq_factor = 4.0;  // Llama 3
  double beta_fast = 32.0;        // YaRN
  double beta_slow = 1.0;         // YaRN
  double attention_factor = 0.0;  // YaRN; 0: 0.1 ln(factor) + 1
};

struct ModelConfig {
  std::string architecture;  // "llama"
  std::string name;          // for people: directory or file name, or what the file calls itself
  uint32_t hidden = 0;
  uint32_t ffn = 0;
  uint32_t n_layers = 0;
  uint32_t n_heads = 0;
  uint32_t n_kv_heads = 0;
  uint32_t head_dim = 0;
  uint32_t vocab = 0;
  uint32_t context = 0;  // longest sequence the model was made for
  float rms_eps = 0.0f;
  double rope_theta = 10000.0;
  RopeScaling rope_scaling;
  RopePairs rope_pairs = RopePairs::kSplitHalves;
  bool tied_embeddings = false;
  std::vector<int32_t> eos;  // any of these ends a sequence; may be empty
};

// Reads config.json and generation_config.json, or GGUF metadata. Throws Error naming file, key, expected and got;
// checks ranges and that sizes fit each other.
ModelConfig read_config(const Checkpoint& checkpoint);

}  // namespace llorch
