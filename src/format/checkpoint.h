// A model's files, mapped: tensors under canonical names, and the configuration that stands beside or among them.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/mapped_file.h"
#include "format/gguf.h"
#include "format/tensor_table.h"

namespace llorch {

// Owns the mapping that its tensors point into. Move-only; tensors and views stay valid across a move. All const
// members may be called from several threads.
//
// Canonical names: token_embd.weight, output_norm.weight, output.weight (LM head; absent when tied), rope_freqs.weight,
// layers.N.{attn_norm,attn_q,attn_k,attn_v,attn_output,ffn_norm,ffn_gate,ffn_up,ffn_down}.{weight,bias}. Shapes are
// [rows, cols] with cols contiguous, so a projection's weight is [out, in] in both containers. GGUF converters permute
// the rows of Llama's attn_q and attn_k (rotary pairs side by side); SafeTensors files do not.
class Checkpoint {
 public:
  enum class Container { kSafetensors, kGguf };

  // Opens a directory (with model.safetensors or model.safetensors.index.json), a .safetensors file, a
  // .safetensors.index.json file or a .gguf file. Nothing but headers is read. Throws Error.
  static Checkpoint open(const std::filesystem::path& path);

  Container container() const { return container_; }
  const std::filesystem::path& path() const { return path_; }  // as given to open()
  const std::vector<MappedFile>& files() const { return files_; }
  uint64_t file_bytes() const;  // of all tensor files

  // In file order. Tensors whose type llorch does not read are not among them, but in unsupported().
  const std::vector<Tensor>& tensors() const { return table_.tensors(); }
  const std::vector<UnsupportedTensor>& unsupported() const { return table_.unsupported(); }

  // find: nullptr if absent; at: throws Error if absent. Both throw Error if the tensor's type is unsupported.
  const Tensor* find(std::string_view canonical) const;
  const Tensor& at(std::string_view canonical) const;

  // SafeTensors: config.json, an Error if it is absent; generation_config.json, null if it is absent. Errors for GGUF.
  bool has_config() const { return config_.has_value(); }
  const nlohmann::json& config() const;
  const nlohmann::json& generation_config() const;

  // SafeTensors: where tokenizer.json stands beside the tensors (it may be absent). Error for GGUF.
  std::filesystem::path tokenizer_json() const;

  // SafeTensors: __metadata__ of the file (of several shards: the first that has the key). Empty for GGUF.
  const std::map<std::string, std::string>& safetensors_metadata() const { return safetensors_metadata_; }

  // GGUF only; Error for SafeTensors.
  const GgufMetadata& metadata() const;

  // Hints to the system: read the tensor's pages ahead; drop them from this process's memory (they can be read again).
  void prefetch(const Tensor& tensor) const;
  void release(const Tensor& tensor) const;

 private:
  Checkpoint() = default;
  void open_directory(const std::filesystem::path& directory);
  void open_file(const std::filesystem::path& file);
  void open_index(const std::filesystem::path& index);
  void read_configs(const std::filesystem::path& directory);
  void require(Container container, std::string_view what) const;
  const MappedFile& file_of(const Tensor& tensor) const;

  Container container_ = Container::kSafetensors;
  std::filesystem::path path_;
  std::filesystem::path directory_;  // where config.json and tokenizer.json stand
  std::vector<MappedFile> files_;
  TensorTable table_;
  std::map<std::string, std::string> safetensors_metadata_;
  std::optional<nlohmann::json> config_;
  nlohmann::json generation_config_;
  std::optional<GgufMetadata> metadata_;
};

}  // namespace llorch
