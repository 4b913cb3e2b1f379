// ModelConfig from Hugging Face's config.json and generation_config.json.
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "model/read_config.h"

namespace llorch {
namespace {

using nlohmann::json;

// Typed access to one JSON object, with errors that name file and key.
class Fields {
 public:
  Fields(const json& object, std::string where) : object_(object), where_(std::move(where)) {
    if (!object.is_object()) fail("{}: expected an object, got {}", where_, object.type_name());
  }

  const json* find(const char* key) const {
    const auto it = object_.find(key);
    return it == object_.end() || it->is_null() ? nullptr : &*it;
  }
  uint32_t u32(const char* key) const { return as_u32(key, require(key)); }
  uint32_t u32(const char* key, uint32_t absent) const {
    const json* value = find(key);
    return value == nullptr ? absent : as_u32(key, *value);
  }
  double number(const char* key) const { return as_number(key, require(key)); }
  double number(const char* key, double absent) const {
    const json* value = find(key);
    return value == nullptr ? absent : as_number(key, *value);
  }
  bool boolean(const char* key, bool absent) const {
    const json* value = find(key);
    if (value == nullptr) return absent;
    if (!value->is_boolean()) wrong(key, "true or false", *value);
    return value->get<bool>();
  }
  std::string str(const char* key, const std::string& absent) const {
    const json* value = find(key);
    if (value == nullptr) return absent;
    if (!value->is_string()) wrong(key, "a string", *value);
    return value->get<std::string>();
  }
  std::vector<int32_t> ids(const char* key) const {
    const json* value = find(key);
    std::vector<int32_t> result;
    if (value == nullptr) return result;
    for (const json& id : value->is_array() ? *value : json::array({*value})) {
      if (!id.is_number_unsigned() || id.get<uint64_t>() > INT32_MAX) wrong(key, "a token id or a list of them", id);
      result.push_back(id.get<int32_t>());
    }
    return result;
  }
  const std::string& where() const { return where_; }

 private:
  const json& require(const char* key) const {
    const json* value = find(key);
    if (value == nullptr) fail("{}: {} is missing", where_, key);
    return *value;
  }
  uint32_t as_u32(const char* key, const json& value) const {
    if (!value.is_number_unsigned() || value.get<uint64_t>() > UINT32_MAX)
      wrong(key, "an unsigned 32-bit integer", value);
    return value.get<uint32_t>();
  }
  double as_number(const char* key, const json& value) const {
    if (!value.is_number()) wrong(key, "a number", value);
    return value.get<double>();
  }
  [[noreturn]] void wrong(const char* key, std::string_view expected, const json& got) const {
    fail("{}: {}: expected {}, got {}", where_, key, expected, got.is_primitive() ? got.dump() : got.type_name());
  }

  const json& object_;
  std::string where_;
};

RopeScaling read_rope_scaling(const json& object, const std::string& where) {
  const Fields fields(object, where);
  const std::string kind = fields.str("rope_type", fields.str("type", "default"));
  RopeScaling s;
  if (kind == "default") return s;
  s.factor = fields.number("factor");
  if (kind == "linear") {
    s.kind = RopeScaling::Kind::kLinear;
  } else if (kind == "llama3") {
    s.kind = RopeScaling::Kind::kLlama3;
    s.low_freq_factor = fields.number("low_freq_factor");
    s.high_freq_factor = fields.number("high_freq_factor");
    s.original_context = fields.number("original_max_position_embeddings");
  } else if (kind == "yarn") {
    s.kind = RopeScaling::Kind::kYarn;
    s.original_context = fields.number("original_max_position_embeddings");
    s.beta_fast = fields.number("beta_fast", s.beta_fast);
    s.beta_slow = fields.number("beta_slow", s.beta_slow);
    s.attention_factor = fields.number("attention_factor", 0.0);
    for (const char* key : {"mscale", "mscale_all_dim", "truncate"})
      if (fields.find(key) != nullptr) fail("{}: {}: this refinement of yarn is not supported", where, key);
  } else {
    fail("{}: rope_type: expected default, linear, llama3 or yarn, got \"{}\"", where, kind);
  }
  return s;
}

void require_absent(const Fields& fields, const char* key, bool set) {
  if (set) fail("{}: {} is set; this form of the Llama architecture is not supported", fields.where(), key);
}

}  // namespace

ModelConfig read_hf_config(const Checkpoint& checkpoint) {
  const Fields fields(checkpoint.config(), checkpoint.path().string() + ": config.json");
  ModelConfig c;
  c.architecture = fields.str("model_type", "");
  if (c.architecture != "llama") fail("{}: model_type: expected \"llama\", got \"{}\"", fields.where(), c.architecture);
  if (const std::string act = fields.str("hidden_act", "silu"); act != "silu")
    fail("{}: hidden_act: expected \"silu\", got \"{}\"", fields.where(), act);
  require_absent(fields, "pretraining_tp", fields.u32("pretraining_tp", 1) != 1);
  c.hidden = fields.u32("hidden_size");
  c.ffn = fields.u32("intermediate_size");
  c.n_layers = fields.u32("num_hidden_layers");
  c.n_heads = fields.u32("num_attention_heads");
  c.n_kv_heads = fields.u32("num_key_value_heads", c.n_heads);
  c.head_dim = fields.u32("head_dim", c.n_heads == 0 ? 0 : c.hidden / c.n_heads);
  c.vocab = fields.u32("vocab_size");
  c.context = fields.u32("max_position_embeddings");
  c.rms_eps = static_cast<float>(fields.number("rms_norm_eps"));
  c.tied_embeddings = fields.boolean("tie_word_embeddings", false);
  c.rope_theta = fields.number("rope_theta", c.rope_theta);
  // transformers 5 writes rope_parameters, which holds both; before, rope_theta and rope_scaling.
  for (const char* key : {"rope_scaling", "rope_parameters"})
    if (const json* rope = fields.find(key); rope != nullptr) {
      const std::string where = fmt::format("{}: {}", fields.where(), key);
      c.rope_scaling = read_rope_scaling(*rope, where);
      c.rope_theta = Fields(*rope, where).number("rope_theta", c.rope_theta);
    }
  c.eos = fields.ids("eos_token_id");
  if (!checkpoint.generation_config().is_null()) {
    const Fields generation(checkpoint.generation_config(), checkpoint.path().string() + ": generation_config.json");
    if (std::vector<int32_t> eos = generation.ids("eos_token_id"); !eos.empty()) c.eos = std::move(eos);
  }
  return c;
}

}  // namespace llorch
