#include "tensor/tensor.h"

#include <fmt/ranges.h>

#include <cstring>

#include "base/error.h"
#include "tensor/blocks.h"

namespace llorch {

std::string shape_string(const std::vector<int64_t>& shape) { return fmt::format("[{}]", fmt::join(shape, ", ")); }

size_t row_bytes(DType dtype, int64_t cols) {
  LLORCH_CHECK(cols >= 0 && cols % static_cast<int64_t>(block_elements(dtype)) == 0, "{} elements of {}", cols,
               to_string(dtype));
  return static_cast<size_t>(cols) / block_elements(dtype) * block_bytes(dtype);
}

namespace {

template <typename Block>
void read_blocks(const std::byte* in, int64_t cols, float* out) {
  for (int64_t k = 0; k < cols; k += Block::kElements) {
    Block block;
    std::memcpy(&block, in + k / Block::kElements * static_cast<int64_t>(sizeof(Block)), sizeof(Block));
    for (int i = 0; i < Block::kElements; ++i) out[k + i] = dequantize(block, i);
  }
}

template <typename Widen>
void read_16bit(const std::byte* in, int64_t cols, float* out, Widen widen) {
  for (int64_t k = 0; k < cols; ++k) {
    uint16_t bits;
    std::memcpy(&bits, in + k * 2, 2);
    out[k] = widen(bits);
  }
}

}  // namespace

void read_row(const Tensor& tensor, int64_t row, float* out) {
  const int64_t cols = tensor.cols();
  const size_t stride = row_bytes(tensor.dtype, cols);
  const size_t offset = static_cast<size_t>(row) * stride;
  LLORCH_CHECK(row >= 0 && row < tensor.rows() && offset + stride <= tensor.bytes.size(), "{}: row {} of {}",
               tensor.name, row, shape_string(tensor.shape));
  const std::byte* in = tensor.bytes.data() + offset;
  if (tensor.dtype == DType::kF32) std::memcpy(out, in, stride);
  if (tensor.dtype == DType::kF16) read_16bit(in, cols, out, f16_to_f32);
  if (tensor.dtype == DType::kBF16) read_16bit(in, cols, out, bf16_to_f32);
  visit_block_type(tensor.dtype, [&]<typename Block>(const Block&) { read_blocks<Block>(in, cols, out); });
}

}  // namespace llorch
