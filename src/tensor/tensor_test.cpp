#include "tensor/tensor.h"

#include <gtest/gtest.h>

#include <cstring>
#include <string_view>

#include "base/error.h"
#include "base/half.h"
#include "tensor/blocks.h"

namespace llorch {
namespace {

// Three blocks of each type and the floats that the gguf package makes of them: tests/fixtures/make_block_vectors.py.
constexpr char kQ8_0Blocks[] =
    "4c22cb49abf82fe0e6443a5320662e34ad5dfa6c09337bf82105c5c8ed2b71078f26cdbe1225ef11a2a55d554be9ee3fbe48ee5fa51919cf"
    "44229066d5ed0534d1546b410500eb7980fef7e449963f1b2fbcacf2ef39ec60b3044791a702333410d1be772633";
constexpr char kQ8_0Floats[] =
    "00de26bf00d6653f00cf85bf0080c9bd00fa133f0080c9be00b8a3be0018563f009c363f00a9823f0080c93e0092a03f00d4103f00b8233f"
    "00a982bf0067923f002097bd0004aa3f00b0e23d0092203f00a1c13f0080c9bd00cccf3e00e07b3d00c239bf005030bf00486fbe0062073f"
    "00e3b13f0050b03d00e3b1bf0048ef3e00d4f4c100a17bc2003ae741003ae7c180d11f43c0b71a43401e1ec3408410c38007ffc2006b1c42"
    "00d4f4418039d6c2006de04200d4f4c200d4f441c08421c3c0b71a4300052ac200052ac2809ea642003ae7c2003a67c2006c3e43806b2dc3"
    "8037924200370142000408c100d2b0c280d19f4200d10ec3c0eb35c38006ddc20000d2b600401738000020b8000020b5000034b600000cb7"
    "0080b637008004b800809d370000073700006b370000aab70000d2b700008cb60000aab600808e370000c8b60000f0370080c0b70000a035"
    "0080b13700c00ab80080deb70000203500007f37000082370000a03600006bb70000a5b700c0143800003e3700007f37";

constexpr char kQ4_0Blocks[] =
    "4c222f23a1b1996b4c00d6a581f34bc4a6ebcdbee6dbf4ed4a9e8e64b414d217caddc1c80500b5b50475b90caf168304251aecf3c7d8";
constexpr char kQ4_0Floats[] =
    "0050b03d00e07bbd0050b0bd0050b0bd0080493c0020173d0080493d0080c9bd0080c9bc002017bd0050b0bd00e07bbd0020173d008049bd"
    "0080c9bc0020173d002097bd002097bd0080c93c0020173d0080493c0080c9bc008049bd0080c9bd00e07b3d0080c93c000000000050b03d"
    "008049bd0080493d0080c93c0020973d00a059400038a3c000a0d940000408c100a059c0003823c1003823c100a0d94000a0d94000a0d940"
    "0038234100a0d93f00a059c0000408c1006c3e4100000080003823c1000408c1006c3ec1003823c100a0d94000a0d9bf0000008000a05940"
    "0038a3c0006c3e41000408c1006c3e4100a0d9c0000408c100a0d9c000a0d9c0000070b5000070b50000a0b5000070b50000a0340000a035"
    "00000c36000020b50000c8b50000a0b5000070b5000020350000a0350000c8b50000a0b4000000000000703500007035000020b60000a0b4"
    "00007035000020b60000203500000cb600000000000020b60000f0b500000cb60000f03500000c360000a0350000c835";

constexpr char kQ4_1Blocks[] =
    "4c2266b6ad8dcee241baeda3d65540779a86662bcdbe33407039307c1dc84b1770db93e3c9744ed90500548064823f564a4f1ed26ccd696d"
    "d03ef1de";
constexpr char kQ4_1Floats[] =
    "00c875be00c875be003069be0028c0be0074c6be00c88dbe00c875be00dcb9be00f8a6be0044adbe00c0ccbe00aca0be00c88dbe00f8a6be"
    "00f8a6be007c87be00c88dbe00609abe003081be003069be0090b3be007c87be003069be00c88dbe00c875be0044adbe0090b3be00aca0be"
    "001494be00609abe00f8a6be0028c0be00600640003c53c100600640006c92c10006a0c1000838c100d284c100d41cc10060064000d284c1"
    "001040c0001040c0003c53c1007096c000a0adc1003c53c100d41cc1001040c0001040c000d41cc10080cc3e006c92c1007096c00080cc3e"
    "00d41cc10006a0c1003c53c100a0adc1006c92c100d41cc1007096c00006a0c1000080b6000094b6000010b5000058b6000008b6000010b5"
    "000060b5000094b60000c0b5000098b500001cb6000098b50000a8b6000060b500009eb6000060b5000058b6000030b600008ab600006cb6"
    "000080b6000080b600009eb6000098b5000058b60000c0b5000058b6000058b6000098b500008ab6000010b5000098b5";

std::vector<std::byte> from_hex(std::string_view text) {
  const auto digit = [](char c) { return c <= '9' ? c - '0' : c - 'a' + 10; };
  std::vector<std::byte> bytes;
  for (size_t i = 0; i < text.size(); i += 2) {
    bytes.push_back(static_cast<std::byte>(digit(text[i]) * 16 + digit(text[i + 1])));
  }
  return bytes;
}

// Bits against bits: the sum of Q4_1 is rounded once after the product, nowhere fused.
void expect_floats(DType dtype, std::string_view blocks, std::string_view floats) {
  const auto bytes = from_hex(blocks);
  const auto expected = from_hex(floats);
  const Tensor tensor{"t", dtype, {static_cast<int64_t>(expected.size() / 4)}, bytes};
  ASSERT_EQ(row_bytes(dtype, tensor.cols()), bytes.size());
  std::vector<float> row(static_cast<size_t>(tensor.cols()));
  read_row(tensor, 0, row.data());
  for (size_t i = 0; i < row.size(); ++i) {
    float value;
    std::memcpy(&value, expected.data() + i * 4, 4);
    EXPECT_EQ(std::bit_cast<uint32_t>(row[i]), std::bit_cast<uint32_t>(value)) << to_string(dtype) << " element " << i;
  }
}

TEST(Tensor, DequantizesBlocksAsTheReferenceDoes) {
  expect_floats(DType::kQ8_0, kQ8_0Blocks, kQ8_0Floats);
  expect_floats(DType::kQ4_0, kQ4_0Blocks, kQ4_0Floats);
  expect_floats(DType::kQ4_1, kQ4_1Blocks, kQ4_1Floats);
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
}

TEST(Tensor, KnowsTheSizesOfItsTypes) {
  EXPECT_EQ(row_bytes(DType::kF32, 64), 256u);
  EXPECT_EQ(row_bytes(DType::kF16, 64), 128u);
  EXPECT_EQ(row_bytes(DType::kBF16, 64), 128u);
  EXPECT_EQ(row_bytes(DType::kQ8_0, 64), 68u);
  EXPECT_EQ(row_bytes(DType::kQ4_0, 64), 36u);
  EXPECT_EQ(row_bytes(DType::kQ4_1, 64), 40u);
  EXPECT_EQ(shape_string({2, 3}), "[2, 3]");
  EXPECT_EQ(shape_string({}), "[]");
}

}  // namespace
}  // namespace llorch
