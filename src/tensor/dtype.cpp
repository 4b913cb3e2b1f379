#include "tensor/dtype.h"

#include "tensor/blocks.h"

namespace llorch {

size_t block_elements(DType dtype) {
  size_t elements = 1;
  visit_block_type(dtype, [&](const auto& block) { elements = static_cast<size_t>(block.kElements); });
  return elements;
}

size_t block_bytes(DType dtype) {
  size_t bytes = dtype == DType::kF32 ? 4 : 2;
  visit_block_type(dtype, [&](const auto& block) { bytes = sizeof block; });
  return bytes;
}

bool is_quantized(DType dtype) { return block_elements(dtype) > 1; }

std::string_view to_string(DType dtype) {
  switch (dtype) {
    case DType::kF32:
      return "f32";
    case DType::kF16:
      return "f16";
    case DType::kBF16:
      return "bf16";
    case DType::kQ8_0:
      return "q8_0";
    case DType::kQ4_0:
      return "q4_0";
    case DType::kQ4_1:
      return "q4_1";
    case DType::kQ5_0:
      return "q5_0";
    case DType::kQ5_1:
      return "q5_1";
    case DType::kQ4_K:
      return "q4_k";
    case DType::kQ5_K:
      return "q5_k";
    case DType::kQ6_K:
      return "q6_k";
  }
  return "?";
}

}  // namespace llorch
