// SafeTensors files: an 8-byte length, a JSON header, and the tensors' bytes.
// Source: https://github.com/huggingface/safetensors#format
#pragma once

#include <map>
#include <string>

#include "base/mapped_file.h"
#include "format/tensor_table.h"

namespace llorch {

// Larger headers are refused, as the format's own reader does.
inline constexpr size_t kMaxSafetensorsHeader = 100'000'000;

// Parses one file, adds its tensors to `table` under canonical names (they point into `file`) and returns its
// __metadata__. Throws Error naming file, tensor, expected and got. `file_names` receives the names as in the file.
std::map<std::string, std::string> read_safetensors(const MappedFile& file, TensorTable& table,
                                                    std::vector<std::string>& file_names);

}  // namespace llorch
