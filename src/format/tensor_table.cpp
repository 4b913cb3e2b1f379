#include "format/tensor_table.h"

#include <array>
#include <utility>

#include "base/error.h"
#include "format/printable.h"

namespace llorch {
namespace {

using Renaming = std::pair<std::string_view, std::string_view>;

constexpr std::array kGlobalNames = {
    Renaming{"embed_tokens.weight", "token_embd.weight"},
    Renaming{"norm.weight", "output_norm.weight"},
};

constexpr std::array kLayerNames = {
    Renaming{"input_layernorm", "attn_norm"}, Renaming{"post_attention_layernorm", "ffn_norm"},
    Renaming{"self_attn.q_proj", "attn_q"},   Renaming{"self_attn.k_proj", "attn_k"},
    Renaming{"self_attn.v_proj", "attn_v"},   Renaming{"self_attn.o_proj", "attn_output"},
    Renaming{"mlp.gate_proj", "ffn_gate"},    Renaming{"mlp.up_proj", "ffn_up"},
    Renaming{"mlp.down_proj", "ffn_down"},
};

// Splits "<prefix>N.rest" into N and rest; false if the name has another form.
bool split_layer(std::string_view name, std::string_view prefix, std::string_view& number, std::string_view& rest) {
  if (name.substr(0, prefix.size()) != prefix) return false;
  name.remove_prefix(prefix.size());
  const size_t digits = name.find_first_not_of("0123456789");
  if (digits == 0 || digits == std::string_view::npos || name[digits] != '.') return false;
  number = name.substr(0, digits);
  rest = name.substr(digits + 1);
  return true;
}

}  // namespace

std::string canonical_name(std::string_view file_name) {
  std::string_view number;
  std::string_view rest;
  if (split_layer(file_name, "blk.", number, rest)) return fmt::format("layers.{}.{}", number, rest);
  if (file_name == "lm_head.weight") return "output.weight";
  constexpr std::string_view kModel = "model.";  // absent in files of the bare model, without its head
  const std::string_view name =
      file_name.substr(0, kModel.size()) == kModel ? file_name.substr(kModel.size()) : file_name;
  for (const auto& [from, to] : kGlobalNames) {
    if (name == from) return std::string(to);
  }
  if (split_layer(name, "layers.", number, rest)) {
    for (const auto& [from, to] : kLayerNames) {
      for (const std::string_view suffix : {".weight", ".bias"}) {
        if (rest.size() == from.size() + suffix.size() && rest.substr(0, from.size()) == from &&
            rest.substr(from.size()) == suffix) {
          return fmt::format("layers.{}.{}{}", number, to, suffix);
        }
      }
    }
  }
  return std::string(file_name);
}

void TensorTable::claim(const std::string& name, Place place, const std::filesystem::path& file) {
  if (!places_.emplace(name, place).second) fail("{}: tensor {} stands twice", file.string(), printable(name));
}

void TensorTable::add(Tensor tensor, const std::filesystem::path& file) {
  claim(tensor.name, {true, tensors_.size()}, file);
  tensors_.push_back(std::move(tensor));
}

void TensorTable::add(UnsupportedTensor tensor) {
  claim(tensor.name, {false, unsupported_.size()}, tensor.file);
  unsupported_.push_back(std::move(tensor));
}

const Tensor* TensorTable::find(std::string_view name) const {
  const auto place = places_.find(name);
  if (place == places_.end()) return nullptr;
  if (place->second.supported) return &tensors_[place->second.index];
  const UnsupportedTensor& tensor = unsupported_[place->second.index];
  fail("{}: tensor {}: expected type F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q4_K, Q5_K or Q6_K, got {}",
       tensor.file.string(), printable(tensor.name), tensor.type);
}

}  // namespace llorch
