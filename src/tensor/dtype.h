// Element types of tensors and their storage sizes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace llorch {

enum class DType : uint8_t {
  kF32,
  kF16,
  kBF16,
  kQ8_0,  // block-quantized; layouts in tensor/blocks.h
  kQ4_0,
  kQ4_1,
};

// Elements that share one storage block: 1 for plain floats, 32 for Q8_0, Q4_0, Q4_1.
size_t block_elements(DType dtype);

// Bytes of one storage block.
size_t block_bytes(DType dtype);

// True for block-quantized types.
bool is_quantized(DType dtype);

// "f32", "f16", "bf16", "q8_0", "q4_0", "q4_1".
std::string_view to_string(DType dtype);

}  // namespace llorch
