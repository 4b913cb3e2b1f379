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
  kQ8_0,  // from here on block-quantized; layouts in tensor/blocks.h
  kQ4_0,
  kQ4_1,
  kQ5_0,
  kQ5_1,
  kQ4_K,
  kQ5_K,
  kQ6_K,
};

inline constexpr DType kDTypes[] = {DType::kF32,  DType::kF16,  DType::kBF16, DType::kQ8_0, DType::kQ4_0, DType::kQ4_1,
                                    DType::kQ5_0, DType::kQ5_1, DType::kQ4_K, DType::kQ5_K, DType::kQ6_K};

// Elements that share one storage block: 1 for plain floats, 256 for K-quants, else 32.
size_t block_elements(DType dtype);

// Bytes of one storage block.
size_t block_bytes(DType dtype);

// True for block-quantized types.
bool is_quantized(DType dtype);

// "f32", "bf16", "q8_0", "q4_k".
std::string_view to_string(DType dtype);

}  // namespace llorch
