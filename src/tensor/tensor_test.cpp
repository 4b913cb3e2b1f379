#include "tensor/tensor.h"

#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>
#include <fstream>

#include "base/error.h"
#include "base/half.h"
#include "tensor/blocks.h"

namespace llorch {
namespace {

// Three blocks of each type and the floats that the gguf package makes of them: tests/fixtures/make_block_vectors.py.
std::vector<std::byte> vector_file(DType dtype, const char* suffix) {
  const std::filesystem::path path =
      fmt::format("{}/tests/fixtures/block-vectors/{}.{}", LLORCH_SOURCE_DIR, to_string(dtype), suffix);
  std::vector<std::byte> bytes(std::filesystem::file_size(path));
  std::ifstream(path, std::ios::binary).read(reinterpret_cast<char*>(bytes.data()), std::ssize(bytes));
  return bytes;
}

// Bits against bits: the sum with a minimum is rounded once after the product, nowhere fused.
TEST(Tensor, DequantizesBlocksAsTheReferenceDoes) {
  for (const DType dtype : kDTypes) {
    if (!is_quantized(dtype)) continue;
    const auto bytes = vector_file(dtype, "blocks");
    const auto expected = vector_file(dtype, "floats");
    ASSERT_EQ(expected.size(), 3 * 4 * block_elements(dtype));
    const Tensor tensor{"t", dtype, {static_cast<int64_t>(expected.size() / 4)}, bytes};
    ASSERT_EQ(row_bytes(dtype, tensor.cols()), bytes.size());
    std::vector<float> row(static_cast<size_t>(tensor.cols()));
    read_row(tensor, 0, row.data());
    for (size_t i = 0; i < row.size(); ++i) {
      float value;
      std::memcpy(&value, expected.data() + i * 4, 4);
      ASSERT_EQ(std::bit_cast<uint32_t>(row[i]), std::bit_cast<uint32_t>(value))
          << to_string(dtype) << " element " << i;
    }
  }
}

TEST(Tensor, ReadsTheAskedRowOfPlainTypesFromUnalignedBytes) {
  std::vector<std::byte> bytes(1 + 2 * 3 * 4);
  const auto put = [&](size_t at, auto value) { std::memcpy(bytes.data() + at, &value, sizeof(value)); };
  for (size_t i = 0; i < 6; ++i) put(1 + 4 * i, 0.5f * static_cast<float>(i));
  float row[3];
  read_row(Tensor{"t", DType::kF32, {2, 3}, std::span(bytes).subspan(1)}, 1, row);
  EXPECT_EQ(row[2], 2.5f);
  for (size_t i = 0; i < 6; ++i) put(1 + 2 * i, f32_to_f16_saturate(0.25f * static_cast<float>(i)));
  read_row(Tensor{"t", DType::kF16, {2, 3}, std::span(bytes).subspan(1)}, 1, row);
  EXPECT_EQ(row[0], 0.75f);
  for (size_t i = 0; i < 6; ++i) put(1 + 2 * i, f32_to_bf16(3.0f * static_cast<float>(i)));
  read_row(Tensor{"t", DType::kBF16, {2, 3}, std::span(bytes).subspan(1)}, 0, row);
  EXPECT_EQ(row[1], 3.0f);
}

TEST(Tensor, ReadsTheAskedRowOfBlocks) {
  BlockQ8_0 blocks[4] = {};  // [2, 64]
  blocks[3].d = f32_to_f16_saturate(0.5f);
  blocks[3].qs[31] = -128;
  float row[64];
  const Tensor tensor{"t", DType::kQ8_0, {2, 64}, std::as_bytes(std::span(blocks))};
  read_row(tensor, 1, row);
  EXPECT_EQ(row[63], -64.0f);
  EXPECT_EQ(row[62], 0.0f);
  read_row(tensor, 0, row);
  EXPECT_EQ(row[63], 0.0f);
}

TEST(Tensor, RefusesRowsOutsideTheTensor) {
  const std::byte bytes[8] = {};
  float row[2];
  const Tensor tensor{"t", DType::kF32, {1, 2}, bytes};
  EXPECT_THROW(read_row(tensor, 1, row), BugError);
  EXPECT_THROW(read_row(tensor, -1, row), BugError);
  EXPECT_THROW(read_row(Tensor{"t", DType::kF32, {2, 2}, bytes}, 1, row), BugError);
  EXPECT_THROW(row_bytes(DType::kQ4_0, 33), BugError);
  EXPECT_THROW(row_bytes(DType::kQ6_K, 32), BugError);
}

TEST(Tensor, KnowsTheSizesOfItsTypes) {
  EXPECT_EQ(row_bytes(DType::kF32, 64), 256u);
  EXPECT_EQ(row_bytes(DType::kF16, 64), 128u);
  EXPECT_EQ(row_bytes(DType::kBF16, 64), 128u);
  EXPECT_EQ(row_bytes(DType::kQ8_0, 64), 68u);
  EXPECT_EQ(row_bytes(DType::kQ4_0, 64), 36u);
  EXPECT_EQ(row_bytes(DType::kQ4_1, 64), 40u);
  EXPECT_EQ(row_bytes(DType::kQ5_0, 64), 44u);
  EXPECT_EQ(row_bytes(DType::kQ5_1, 64), 48u);
  EXPECT_EQ(row_bytes(DType::kQ4_K, 512), 288u);
  EXPECT_EQ(row_bytes(DType::kQ5_K, 512), 352u);
  EXPECT_EQ(row_bytes(DType::kQ6_K, 512), 420u);
  EXPECT_EQ(shape_string({2, 3}), "[2, 3]");
  EXPECT_EQ(shape_string({}), "[]");
}

}  // namespace
}  // namespace llorch
