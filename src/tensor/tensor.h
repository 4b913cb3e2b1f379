// A named, typed, shaped view of bytes that something else owns.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "tensor/dtype.h"

namespace llorch {

// Row-major; shape[0] is the slowest dimension, the last is contiguous ("[rows, cols]"). Block-quantized types divide
// the last dimension into blocks. The bytes may be unaligned (they lie in a mapped file): read them with memcpy.
struct Tensor {
  std::string name;
  DType dtype = DType::kF32;
  std::vector<int64_t> shape;
  std::span<const std::byte> bytes;

  int64_t rows() const { return shape.size() < 2 ? 1 : shape[0]; }
  int64_t cols() const { return shape.empty() ? 1 : shape.back(); }
};

// "[2048, 5632]"
std::string shape_string(const std::vector<int64_t>& shape);

// Bytes of one row of `cols` elements; cols must be a multiple of the type's block.
size_t row_bytes(DType dtype, int64_t cols);

// Dequantizes row `row` of a tensor of one or two dimensions into out[cols], each element exactly or as
// tensor/blocks.h says.
void read_row(const Tensor& tensor, int64_t row, float* out);

}  // namespace llorch
