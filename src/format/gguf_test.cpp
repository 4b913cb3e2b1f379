#include "format/gguf.h"

#include <gmock/gmock.h>

#include "format/files_for_test.h"
#include "format/gguf_builder_for_test.h"

namespace llorch {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::StartsWith;

// A parsed file on an exact heap copy of its bytes.
struct Parsed {
  explicit Parsed(const std::string& text) : bytes(exact_copy(text)), metadata(read_gguf(bytes, "f", table)) {}
  std::vector<std::byte> bytes;
  TensorTable table;
  GgufMetadata metadata;
};

// Decodes every value and touches every byte of every tensor.
uint64_t read_everything(const Parsed& parsed) {
  uint64_t sum = 0;
  for (const auto& value : parsed.metadata.values()) {
    if (value.type == GgufType::kString) sum += parsed.metadata.require_str(value.key).size();
    if (value.type == GgufType::kArray && value.element == GgufType::kString) {
      for (const std::string_view text : parsed.metadata.strings(value.key)) sum += std::hash<std::string_view>()(text);
    }
    for (const std::byte b : value.payload) sum += std::to_integer<uint64_t>(b);
  }
  for (const Tensor& tensor : parsed.table.tensors()) {
    for (const std::byte b : tensor.bytes) sum += std::to_integer<uint64_t>(b);
  }
  return sum;
}

std::string error_of_file(const std::string& text) {
  return error_of([&] { read_everything(Parsed(text)); });
}
std::string error_of_file(const GgufBuilder& builder) { return error_of_file(builder.build()); }

// One value of every type, and arrays.
GgufBuilder every_type() {
  GgufBuilder file;
  file.pair("u8", GgufType::kU8, le<uint8_t>(200)).pair("i8", GgufType::kI8, le<int8_t>(-5));
  file.pair("u16", GgufType::kU16, le<uint16_t>(65535)).pair("i16", GgufType::kI16, le<int16_t>(-300));
  file.u32("u32", 4'000'000'000u).pair("i32", GgufType::kI32, le<int32_t>(7));
  file.pair("u64", GgufType::kU64, le<uint64_t>(UINT64_MAX)).pair("i64", GgufType::kI64, le<int64_t>(-1));
  file.pair("f32", GgufType::kF32, le(1.5f)).pair("f64", GgufType::kF64, le(0.1));
  file.pair("bool", GgufType::kBool, le<uint8_t>(1)).str("str", "text");
  file.array("strings", GgufType::kString, 3, gguf_string("a") + gguf_string("") + gguf_string("\xff\n"));
  file.array("floats", GgufType::kF32, 2, le(1.0f) + le(-2.0f));
  file.array("i32s", GgufType::kI32, 2, le<int32_t>(-1) + le<int32_t>(3));
  file.array("u32s", GgufType::kU32, 1, le<uint32_t>(9));
  file.array("empty", GgufType::kString, 0, "");
  const std::string inner = le(static_cast<uint32_t>(GgufType::kU8)) + le<uint64_t>(2) + "xy";
  file.array("nested", GgufType::kArray, 2, inner + inner);
  return file;
}

TEST(GgufMetadata, GivesEveryTypeAsItStands) {
  const Parsed parsed(every_type().build());
  const GgufMetadata& m = parsed.metadata;
  EXPECT_EQ(m.u64("u8"), 200u);
  EXPECT_EQ(m.i64("i8"), -5);
  EXPECT_EQ(m.u64("u16"), 65535u);
  EXPECT_EQ(m.i64("i16"), -300);
  EXPECT_EQ(m.u64("u32"), 4'000'000'000u);
  EXPECT_EQ(m.u64("i32"), 7u);
  EXPECT_EQ(m.u64("u64"), UINT64_MAX);
  EXPECT_EQ(m.i64("i64"), -1);
  EXPECT_EQ(m.f64("f32"), 1.5);
  EXPECT_EQ(m.f64("f64"), 0.1);
  EXPECT_EQ(m.boolean("bool"), true);
  EXPECT_EQ(m.str("str"), "text");
  EXPECT_THAT(m.strings("strings"), ElementsAre("a", "", "\xff\n"));
  EXPECT_THAT(m.floats("floats"), ElementsAre(1.0f, -2.0f));
  EXPECT_THAT(m.i32s("i32s"), ElementsAre(-1, 3));
  EXPECT_THAT(m.i32s("u32s"), ElementsAre(9));
  EXPECT_TRUE(m.contains("empty"));
  EXPECT_THAT(m.strings("empty"), IsEmpty());
  EXPECT_TRUE(m.contains("nested"));
  EXPECT_TRUE(parsed.table.tensors().empty());
}

TEST(GgufMetadata, AbsentKeysAreNoErrorUnlessRequired) {
  const Parsed parsed(GgufBuilder().build());
  const GgufMetadata& m = parsed.metadata;
  EXPECT_FALSE(m.contains("k"));
  EXPECT_EQ(m.u64("k"), std::nullopt);
  EXPECT_EQ(m.i64("k"), std::nullopt);
  EXPECT_EQ(m.f64("k"), std::nullopt);
  EXPECT_EQ(m.boolean("k"), std::nullopt);
  EXPECT_EQ(m.str("k"), std::nullopt);
  EXPECT_THAT(m.strings("k"), IsEmpty());
  EXPECT_THAT(m.floats("k"), IsEmpty());
  EXPECT_THAT(m.i32s("k"), IsEmpty());
  EXPECT_EQ(error_of([&] { m.require_u64("k"); }), "f: key k is missing");
  EXPECT_EQ(error_of([&] { m.require_f64("k"); }), "f: key k is missing");
  EXPECT_EQ(error_of([&] { m.require_str("k"); }), "f: key k is missing");
}

TEST(GgufMetadata, WrongTypesNameKeyExpectedAndGot) {
  const Parsed parsed(every_type().build());
  const GgufMetadata& m = parsed.metadata;
  EXPECT_EQ(error_of([&] { m.u64("i8"); }), "f: key i8: expected an integer of 0 or more, got i8 -5");
  EXPECT_EQ(error_of([&] { m.u64("f32"); }), "f: key f32: expected an integer of 0 or more, got f32");
  EXPECT_EQ(error_of([&] { m.i64("u64"); }),
            "f: key u64: expected an integer within i64, got u64 18446744073709551615");
  EXPECT_EQ(error_of([&] { m.f64("u8"); }), "f: key u8: expected f32 or f64, got u8 200");
  EXPECT_EQ(error_of([&] { m.boolean("u8"); }), "f: key u8: expected bool, got u8 200");
  EXPECT_EQ(error_of([&] { m.str("strings"); }), "f: key strings: expected string, got array of string");
  EXPECT_EQ(error_of([&] { m.strings("str"); }), "f: key str: expected array of string, got string");
  EXPECT_EQ(error_of([&] { m.floats("i32s"); }), "f: key i32s: expected array of f32, got array of i32");
  EXPECT_EQ(error_of([&] { m.i32s("i32"); }), "f: key i32: expected array of i32 or u32, got i32 7");
  EXPECT_EQ(error_of([&] { m.i32s("nested"); }), "f: key nested: expected array of i32 or u32, got array of array");
  const Parsed large(GgufBuilder().array("a", GgufType::kU32, 1, le(UINT32_MAX)).build());
  EXPECT_EQ(error_of([&] { large.metadata.i32s("a"); }),
            "f: key a: element 0: expected at most 2147483647, got 4294967295");
}

TEST(Gguf, ReadsEveryTensorTypeWithReversedDimensions) {
  GgufBuilder file;
  file.tensor("blk.0.attn_q.weight", 0, {3, 2}, std::string(24, 'a')).tensor("f16", 1, {4}, std::string(8, 'b'));
  file.tensor("bf16", 30, {2, 3, 4, 5}, std::string(240, 'c')).tensor("q8_0", 8, {64, 2}, std::string(136, 'd'));
  file.tensor("q4_0", 2, {32}, std::string(18, 'e')).tensor("q4_1", 3, {32, 3}, std::string(60, 'f'));
  file.tensor("q5_0", 6, {32}, std::string(22, 'm')).tensor("q5_1", 7, {32, 3}, std::string(72, 'n'));
  file.tensor("q4_k", 12, {256}, std::string(144, 'o')).tensor("q5_k", 13, {512, 2}, std::string(704, 'p'));
  file.tensor("q6_k", 14, {256, 3}, std::string(630, 'q'));
  file.tensor("q2_k", 10, {256}, std::string(84, 'g')).tensor("future", 99, {1}, "h").tensor("scalar", 0, {}, "ijkl");
  for (const uint32_t version : {2u, 3u}) {
    file.version = version;
    const Parsed parsed(file.build());
    const auto expect = [&](const char* name, DType dtype, const std::vector<int64_t>& shape, char fill, size_t bytes) {
      const Tensor* tensor = parsed.table.find(name);
      ASSERT_NE(tensor, nullptr) << name;
      EXPECT_EQ(tensor->dtype, dtype) << name;
      EXPECT_EQ(tensor->shape, shape) << name;
      EXPECT_EQ(tensor->bytes.size(), bytes) << name;
      for (const std::byte b : tensor->bytes) ASSERT_EQ(b, static_cast<std::byte>(fill)) << name;
    };
    expect("layers.0.attn_q.weight", DType::kF32, {2, 3}, 'a', 24);
    expect("f16", DType::kF16, {4}, 'b', 8);
    expect("bf16", DType::kBF16, {5, 4, 3, 2}, 'c', 240);
    expect("q8_0", DType::kQ8_0, {2, 64}, 'd', 136);
    expect("q4_0", DType::kQ4_0, {32}, 'e', 18);
    expect("q4_1", DType::kQ4_1, {3, 32}, 'f', 60);
    expect("q5_0", DType::kQ5_0, {32}, 'm', 22);
    expect("q5_1", DType::kQ5_1, {3, 32}, 'n', 72);
    expect("q4_k", DType::kQ4_K, {256}, 'o', 144);
    expect("q5_k", DType::kQ5_K, {2, 512}, 'p', 704);
    expect("q6_k", DType::kQ6_K, {3, 256}, 'q', 630);
    EXPECT_THAT(error_of([&] { parsed.table.find("q2_k"); }),
                HasSubstr("f: tensor q2_k: expected type F32, F16, BF16"));
    EXPECT_THAT(error_of([&] { parsed.table.find("q2_k"); }), HasSubstr("got Q2_K"));
    EXPECT_THAT(error_of([&] { parsed.table.find("future"); }), HasSubstr("got type 99"));
    EXPECT_EQ(parsed.table.find("scalar")->bytes.size(), 4u);
  }
}

TEST(Gguf, HonoursTheAlignmentOfTheFile) {
  for (const uint32_t alignment : {1u, 8u, 64u, 4096u}) {
    GgufBuilder file;
    file.alignment = alignment;
    file.u32("general.alignment", alignment).tensor("a", 0, {1}, "aaaa").tensor("b", 0, {1}, "bbbb");
    const Parsed parsed(file.build());
    EXPECT_EQ(parsed.table.find("b")->bytes[3], std::byte{'b'}) << alignment;
    EXPECT_EQ((parsed.table.find("b")->bytes.data() - parsed.bytes.data()) % alignment, 0) << alignment;
  }
  for (const uint32_t alignment : {0u, 3u, 48u}) {
    EXPECT_EQ(error_of_file(GgufBuilder().u32("general.alignment", alignment)),
              fmt::format("f: key general.alignment: expected a power of two, got {}", alignment));
  }
  EXPECT_THAT(error_of_file(GgufBuilder().str("general.alignment", "32")), HasSubstr("got string"));
}

TEST(Gguf, RefusesOtherVersionsAndFiles) {
  EXPECT_EQ(error_of_file(std::string("GGML....")), "f: expected a GGUF file");
  GgufBuilder file;
  file.version = 1;
  EXPECT_EQ(error_of_file(file), "f: expected GGUF version 2 or 3, got 1");
  file.version = 0x03000000;
  EXPECT_EQ(error_of_file(file), "f: expected GGUF version 2 or 3, got 50331648 (a big-endian file)");
  EXPECT_THAT(error_of_file(GgufBuilder().u32("split.count", 3)), HasSubstr("one of 3 parts of a split GGUF"));
}

TEST(Gguf, ErrorsNameTensorExpectedAndGot) {
  const auto tensor = [](uint32_t type, const std::vector<uint64_t>& dims, size_t bytes,
                         uint64_t offset = GgufBuilder::kNext) {
    return error_of_file(GgufBuilder().tensor("t", type, dims, std::string(bytes, 'x'), offset));
  };
  EXPECT_EQ(tensor(0, {2}, 7), "f: tensor t: 8 bytes at offset 0 do not lie in the 7 bytes of data");
  EXPECT_EQ(tensor(0, {2}, 8, 32), "f: tensor t: 8 bytes at offset 32 do not lie in the 8 bytes of data");
  EXPECT_THAT(tensor(0, {2}, 8, UINT64_MAX - 31), HasSubstr("do not lie in"));
  EXPECT_THAT(tensor(99, {2}, 8, 1u << 20), HasSubstr("do not lie in"));
  EXPECT_EQ(tensor(0, {1}, 8, 4), "f: tensor t: offset 4 is no multiple of the alignment 32");
  EXPECT_EQ(tensor(8, {33}, 99), "f: tensor t: q8_0 rows of 33 elements are no multiple of the block of 32");
  EXPECT_EQ(tensor(3, {}, 99), "f: tensor t: q4_1 rows of 1 elements are no multiple of the block of 32");
  EXPECT_EQ(tensor(14, {256 + 32}, 999), "f: tensor t: q6_k rows of 288 elements are no multiple of the block of 256");
  EXPECT_EQ(tensor(12, {256, 2}, 287), "f: tensor t: 288 bytes at offset 0 do not lie in the 287 bytes of data");
  EXPECT_EQ(tensor(0, {1, 1, 1, 1, 1}, 4), "f: tensor t: expected at most 4 dimensions, got 5");
  EXPECT_EQ(tensor(0, {4, 0}, 4), "f: tensor t: dimension 1: got 0");
  EXPECT_EQ(tensor(0, {1ull << 63}, 4), "f: tensor t: dimension 0: got 9223372036854775808");
  EXPECT_EQ(tensor(0, {1ull << 32, 1ull << 32}, 4), "f: tensor t: shape [4294967296, 4294967296] overflows");
  EXPECT_EQ(tensor(1, {1ull << 62, 2}, 4), "f: tensor t: shape [2, 4611686018427387904] overflows");
  EXPECT_EQ(error_of_file(GgufBuilder().tensor("t", 0, {16}, std::string(64, 'x')).tensor("u", 0, {1}, "yyyy", 32)),
            "f: tensor u: offset 32 overlaps another tensor");
  EXPECT_EQ(error_of_file(GgufBuilder().tensor("t", 0, {1}, "xxxx").tensor("t", 0, {1}, "yyyy")),
            "f: tensor t stands twice");
  EXPECT_EQ(error_of_file(GgufBuilder().tensor("a\nb", 0, {1}, "xxxx")),
            "f: tensor name \"a\\x0ab\": expected printable ASCII");
  EXPECT_EQ(error_of_file(GgufBuilder().tensor("", 0, {1}, "xxxx")),
            "f: tensor name: expected 1 to 65535 characters, got 0");
}

TEST(Gguf, ErrorsNameKeyExpectedAndGot) {
  EXPECT_EQ(error_of_file(GgufBuilder().u32("k", 1).str("k", "x")), "f: key k stands twice");
  EXPECT_EQ(error_of_file(GgufBuilder().pair("k", static_cast<GgufType>(13), "x")),
            "f: key k: value type: expected 0 to 12, got 13");
  EXPECT_EQ(error_of_file(GgufBuilder().pair("k", GgufType::kBool, le<uint8_t>(2))),
            "f: key k: bool: expected 0 or 1, got 2");
  EXPECT_EQ(error_of_file(GgufBuilder().pair("k", GgufType::kString, le(UINT64_MAX))),
            "f: key k: string needs 18446744073709551615 bytes at offset 45, but 0 remain");
  EXPECT_EQ(error_of_file(GgufBuilder().array("k", GgufType::kF32, 1ull << 62, "xxxx")),
            "f: key k: 4611686018427387904 values of at least 4 bytes do not fit in the 4 that remain");
  EXPECT_THAT(error_of_file(GgufBuilder().array("k", GgufType::kString, 1ull << 61, "")), HasSubstr("do not fit"));
  EXPECT_THAT(error_of_file(GgufBuilder().array("k", GgufType::kArray, 1ull << 61, "")), HasSubstr("do not fit"));
  std::string nested;
  for (int depth = 0; depth < 100'000; ++depth) nested += le(static_cast<uint32_t>(GgufType::kArray)) + le<uint64_t>(1);
  EXPECT_EQ(error_of_file(GgufBuilder().array("k", GgufType::kArray, 1, nested)),
            "f: key k: arrays nested deeper than 4");
}

TEST(Gguf, RefusesCountsThatCannotFitBeforeAllocating) {
  const GgufBuilder file = GgufBuilder().u32("k", 1);
  EXPECT_EQ(error_of_file(file.build(UINT64_MAX, 1)),
            "f: 18446744073709551615 tensors of at least 24 bytes do not fit in the 0 that remain");
  EXPECT_EQ(error_of_file(file.build(0, 1ull << 60)),
            "f: 1152921504606846976 metadata pairs of at least 13 bytes do not fit in the 17 that remain");
}

// Metadata of every type and three tensors: the subject of the mutations.
std::string small_file() {
  GgufBuilder file = every_type();
  file.u32("general.alignment", 32).tensor("blk.0.attn_q.weight", 0, {3, 2}, std::string(24, 'a'));
  return file.tensor("q", 8, {32, 2}, std::string(68, 'b')).tensor("k", 10, {256}, std::string(210, 'c')).build();
}

TEST(Gguf, RefusesTruncationsOrShowsOnlyWhatIsThere) {
  const std::string text = small_file();
  ASSERT_EQ(error_of_file(text), "(no error)");
  for (size_t size = 0; size < text.size(); ++size) {
    const std::string error = error_of_file(text.substr(0, size));
    if (size + 210 < text.size()) {
      EXPECT_THAT(error, StartsWith("f: ")) << size;  // the last tensor's type is unknown, so its length is too
    }
  }
}

TEST(Gguf, SurvivesEveryFlippedBitAndReplacedByte) {
  const std::string text = small_file();
  size_t opened = 0;
  for (size_t i = 0; i < text.size() - 310; ++i) {
    std::string replacements = {'\0', '\x7f', '\x80', '\xff'};
    for (int bit = 0; bit < 8; ++bit) replacements += static_cast<char>(text[i] ^ (1 << bit));
    for (const char replacement : replacements) {
      std::string changed = text;
      changed[i] = replacement;
      opened += error_of_file(changed) == "(no error)" ? 1 : 0;  // anything but Error fails the test
    }
  }
  EXPECT_GT(opened, 0u);  // a changed letter of a name opens
}

}  // namespace
}  // namespace llorch
