// SafeTensors files: an 8-byte length, a JSON header, and the tensors' bytes.
// Source: https://github.com/huggingface/safetensors#format
#pragma once

#include <cstddef>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "format/tensor_table.h"

namespace llorch {

// Larger headers are refused, as the format's own reader does.
inline constexpr size_t kMaxSafetensorsHeader = 100'000'000;

// Parses the bytes of `file`, adds its tensors to `table` under canonical names (they point into `bytes`) and returns
// its __metadata__. `file_names` receives the names as in the file. Throws Error naming file, tensor, expected and got.
std::map<std::string, std::string> read_safetensors(std::span<const std::byte> bytes, const std::filesystem::path& file,
                                                    TensorTable& table, std::vector<std::string>& file_names);

}  // namespace llorch
