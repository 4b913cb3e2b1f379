// Writes SafeTensors files: for traces, benches and tests.
#pragma once

#include <filesystem>
#include <map>
#include <span>
#include <string>

#include "tensor/tensor.h"

namespace llorch {

// Writes tensors of f32, f16 and bf16 under their names as given: f32 first, otherwise in the given order, so that each
// starts at a multiple of its element size. Throws Error: another type, a name twice, bytes that do not match the
// shape, or a write that failed (a half-written file may then remain).
void write_safetensors(const std::filesystem::path& path, std::span<const Tensor> tensors,
                       const std::map<std::string, std::string>& metadata = {});

}  // namespace llorch
