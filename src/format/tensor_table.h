// The tensors of a checkpoint under their canonical names, with those whose type llorch cannot read listed apart.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "tensor/tensor.h"

namespace llorch {

// A tensor that the file holds in a type which llorch does not read ("I64", "Q2_K"). `bytes` is 0 where the size of
// the type is unknown.
struct UnsupportedTensor {
  std::string name;
  std::string type;
  std::vector<int64_t> shape;
  uint64_t bytes = 0;
  std::filesystem::path file;
};

class TensorTable {
 public:
  // Both throw Error naming the file if the name is taken.
  void add(Tensor tensor, const std::filesystem::path& file);
  void add(UnsupportedTensor tensor);

  const std::vector<Tensor>& tensors() const { return tensors_; }
  const std::vector<UnsupportedTensor>& unsupported() const { return unsupported_; }

  // nullptr if absent. Throws Error naming file, tensor, its type and the supported ones if the type is unsupported.
  const Tensor* find(std::string_view name) const;

 private:
  struct Place {
    bool supported;
    size_t index;  // into tensors_ or unsupported_
  };
  void claim(const std::string& name, Place place, const std::filesystem::path& file);

  std::vector<Tensor> tensors_;
  std::vector<UnsupportedTensor> unsupported_;
  std::map<std::string, Place, std::less<>> places_;
};

// The canonical name of a tensor: "model.layers.3.self_attn.q_proj.weight" (Hugging Face) and "blk.3.attn_q.weight"
// (GGUF) are both "layers.3.attn_q.weight". Names that are not known stay as they are.
std::string canonical_name(std::string_view file_name);

}  // namespace llorch
