#include "format/safetensors.h"

#include <gmock/gmock.h>

#include "format/files_for_test.h"
#include "format/safetensors_writer.h"

namespace llorch {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::StartsWith;

std::string file_of(const std::string& header, const std::string& data, uint64_t length) {
  return std::string(reinterpret_cast<const char*>(&length), 8) + header + data;
}
std::string file_of(const std::string& header, const std::string& data) { return file_of(header, data, header.size()); }

// Parses an exact heap copy and touches every byte that the table shows.
uint64_t parse_and_read(const std::string& text, TensorTable& table) {
  const std::vector<std::byte> bytes = exact_copy(text);
  std::vector<std::string> names;
  read_safetensors(bytes, "f", table, names);
  uint64_t sum = 0;
  for (const Tensor& tensor : table.tensors()) {
    for (const std::byte b : tensor.bytes) sum += std::to_integer<uint64_t>(b);
  }
  return sum;
}

std::string error_of_file(const std::string& text) {
  return error_of([&] {
    TensorTable table;
    parse_and_read(text, table);
  });
}

std::string error_of_header(const std::string& header, size_t data_bytes) {
  return error_of_file(file_of(header, std::string(data_bytes, 'x')));
}

const char kSmall[] =
    R"({"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[2,1],"data_offsets":[0,8]},)"
    R"("lm_head.weight":{"dtype":"BF16","shape":[1,3],"data_offsets":[10,16]},)"
    R"("c":{"dtype":"F16","shape":[],"data_offsets":[8,10]},"n":{"dtype":"I64","shape":[1],"data_offsets":[16,24]},)"
    R"("z":{"dtype":"F32","shape":[0,5],"data_offsets":[24,24]}}   )";

TEST(Safetensors, ReadsEveryTypeInFileOrderUnderCanonicalNames) {
  const std::string text = file_of(kSmall, "abcdefghijklmnopqrstuvwx");
  const auto bytes = exact_copy(text);
  TensorTable table;
  std::vector<std::string> names;
  const auto metadata = read_safetensors(bytes, "f", table, names);
  EXPECT_THAT(metadata, ElementsAre(testing::Pair("format", "pt")));
  EXPECT_THAT(names, ElementsAre("a", "c", "lm_head.weight", "n", "z"));
  ASSERT_EQ(table.tensors().size(), 4u);
  const Tensor& head = *table.find("output.weight");
  EXPECT_EQ(head.dtype, DType::kBF16);
  EXPECT_THAT(head.shape, ElementsAre(1, 3));
  EXPECT_EQ(std::string(reinterpret_cast<const char*>(head.bytes.data()), head.bytes.size()), "klmnop");
  EXPECT_EQ(table.find("a")->dtype, DType::kF32);
  EXPECT_EQ(table.find("c")->dtype, DType::kF16);
  EXPECT_TRUE(table.find("c")->shape.empty());
  EXPECT_EQ(table.find("z")->bytes.size(), 0u);
  EXPECT_EQ(error_of([&] { table.find("n"); }),
            "f: tensor n: expected type F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q4_K, Q5_K or Q6_K, got I64");
}

TEST(Safetensors, ErrorsNameTensorExpectedAndGot) {
  const std::string head = R"({"t":{"dtype":"F32","shape":)";
  EXPECT_EQ(error_of_header(head + R"([2],"data_offsets":[0,4]}})", 4),
            "f: tensor t: F32 [2] needs 8 bytes, but data_offsets [0, 4] hold 4");
  EXPECT_EQ(error_of_header(head + R"([2],"data_offsets":[0,8]}})", 7),
            "f: tensor t: data_offsets [0, 8] do not lie in the 7 bytes of data");
  EXPECT_EQ(error_of_header(head + R"([0],"data_offsets":[8,0]}})", 8),
            "f: tensor t: data_offsets [8, 0] do not lie in the 8 bytes of data");
  EXPECT_EQ(error_of_header(head + R"([1],"data_offsets":[0,4]}})", 5),
            "f: expected 4 bytes of data as the header says, got 5");
  EXPECT_EQ(error_of_header(head + R"([1],"data_offsets":[1,5]}})", 5),
            "f: tensor t: 1 bytes before it belong to no tensor");
  EXPECT_EQ(
      error_of_header(head + R"([1],"data_offsets":[0,4]},"u":{"dtype":"I8","shape":[4],"data_offsets":[2,6]}})", 6),
      "f: tensor u: data_offsets [2, 6] overlap another tensor");
  EXPECT_THAT(error_of_header(head + R"([4294967296,4294967296],"data_offsets":[0,0]}})", 0), HasSubstr("overflows"));
  EXPECT_THAT(error_of_header(head + R"([9223372036854775808],"data_offsets":[0,0]}})", 0), HasSubstr("does not fit"));
  EXPECT_EQ(error_of_header(head + R"([-1],"data_offsets":[0,4]}})", 4),
            "f: tensor t: shape: expected an integer of 0 or more, got -1");
  EXPECT_EQ(error_of_header(head + R"([1.0],"data_offsets":[0,4]}})", 4),
            "f: tensor t: shape: expected an integer of 0 or more, got 1.0");
  EXPECT_EQ(error_of_header(head + R"(1,"data_offsets":[0,4]}})", 4),
            "f: tensor t: shape: expected an array, got number");
  EXPECT_EQ(error_of_header(head + R"([1]}})", 4), "f: tensor t: field \"data_offsets\" is missing");
  EXPECT_EQ(error_of_header(head + R"([1],"data_offsets":[0,2,4]}})", 4),
            "f: tensor t: data_offsets: expected two integers");
  EXPECT_EQ(error_of_header(R"({"t":[]})", 0), "f: tensor t: expected an object in the header, got array");
  EXPECT_EQ(error_of_header(R"({"t":{"dtype":1,"shape":[],"data_offsets":[0,4]}})", 4),
            "f: tensor t: dtype: expected a string, got number");
  EXPECT_EQ(error_of_header(R"({"__metadata__":{"a":1}})", 0), "f: __metadata__: a: expected a string, got number");
  EXPECT_EQ(error_of_header(R"({"__metadata__":[]})", 0), "f: __metadata__: expected an object, got array");
  EXPECT_EQ(error_of_header("[]", 0), "f: header: expected an object, got array");
}

TEST(Safetensors, RefusesATensorTwice) {
  const std::string t = R"("t":{"dtype":"F32","shape":[1],"data_offsets":[0,4]})";
  EXPECT_EQ(error_of_header("{" + t + "," + t + "}", 4), "f: header: key \"t\" stands twice in one object");
  EXPECT_EQ(error_of_header(R"({"model.norm.weight":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},)"
                            R"("output_norm.weight":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})",
                            8),
            "f: tensor output_norm.weight stands twice");
}

TEST(Safetensors, RefusesHeadersThatDoNotFit) {
  EXPECT_EQ(error_of_file("short"), "f: expected a SafeTensors header, got a file of 5 bytes");
  EXPECT_EQ(error_of_file(file_of("{}", "", 3)), "f: the header needs 3 bytes, but 2 remain");
  EXPECT_EQ(error_of_file(file_of("{}", "", UINT64_MAX)),
            "f: expected a SafeTensors header of at most 100000000 bytes, got 18446744073709551615");
}

TEST(Safetensors, RefusesEveryTruncation) {
  const std::string text = file_of(kSmall, std::string(24, 'd'));
  ASSERT_EQ(error_of_file(text), "(no error)");
  for (size_t size = 0; size < text.size(); ++size) {
    EXPECT_THAT(error_of_file(text.substr(0, size)), StartsWith("f: ")) << size;
  }
}

TEST(Safetensors, SurvivesEveryFlippedBitAndReplacedByte) {
  const std::string text = file_of(kSmall, std::string(24, 'd'));
  size_t opened = 0;
  for (size_t i = 0; i < text.size() - 24; ++i) {
    std::string replacements = {'\0', '\xff', '"', '{', '}', '[', ']', '9', '0', '-'};
    for (int bit = 0; bit < 8; ++bit) replacements += static_cast<char>(text[i] ^ (1 << bit));
    for (const char replacement : replacements) {
      std::string changed = text;
      changed[i] = replacement;
      opened += error_of_file(changed) == "(no error)" ? 1 : 0;  // anything but Error fails the test
    }
  }
  EXPECT_GT(opened, 0u);  // a changed letter of a name opens
}

TEST(SafetensorsWriter, WritesWhatTheReaderReads) {
  std::vector<std::byte> data(12 + 6 + 8);
  for (size_t i = 0; i < data.size(); ++i) data[i] = static_cast<std::byte>(i);
  const std::span<const std::byte> all(data);
  const std::vector<Tensor> tensors = {{"half", DType::kF16, {3}, all.subspan(12, 6)},
                                       {"single \"ü\"", DType::kF32, {1, 3}, all.first(12)},
                                       {"brain", DType::kBF16, {2, 2}, all.last(8)}};
  const TempDirectory directory;
  const auto path = directory.path() / "out.safetensors";
  write_safetensors(path, tensors, {{"note", "hello"}});
  const auto bytes = exact_copy(read_text(path));
  TensorTable table;
  std::vector<std::string> names;
  EXPECT_THAT(read_safetensors(bytes, path, table, names), ElementsAre(testing::Pair("note", "hello")));
  EXPECT_THAT(names, ElementsAre("single \"ü\"", "half", "brain"));
  for (const Tensor& tensor : tensors) {
    const Tensor* read = table.find(tensor.name);
    ASSERT_NE(read, nullptr);
    EXPECT_EQ(read->dtype, tensor.dtype);
    EXPECT_EQ(read->shape, tensor.shape);
    EXPECT_TRUE(std::equal(read->bytes.begin(), read->bytes.end(), tensor.bytes.begin(), tensor.bytes.end()));
    EXPECT_EQ((read->bytes.data() - bytes.data()) % static_cast<int64_t>(block_bytes(read->dtype)), 0);
  }
}

TEST(SafetensorsWriter, PiecesInAnyOrderGiveTheSameFileAndNoReaderTakesItBeforeItsEnd) {
  const TempDirectory directory;
  const auto path = directory.path() / "pieces", whole_path = directory.path() / "whole";
  std::vector<std::byte> data(24 + 6);
  for (size_t i = 0; i < data.size(); ++i) data[i] = static_cast<std::byte>(i);
  const std::span<const std::byte> all(data);
  const std::vector<Tensor> tensors = {{"half", DType::kF16, {3}, all.last(6)},
                                       {"t", DType::kF32, {3, 2}, all.first(24)}};
  const std::map<std::string, std::string> metadata = {{"k", "v"}};
  SafetensorsWriter writer(path, tensors, metadata);
  writer.write(1, 8, all.subspan(8, 16));
  writer.write(0, 0, all.last(6));
  EXPECT_THROW(writer.finish(), BugError);
  EXPECT_THROW(writer.write(1, 20, all.first(8)), BugError);
  writer.write(1, 0, all.first(8));
  EXPECT_THAT(error_of_file(read_text(path)), HasSubstr("header"));
  writer.finish();
  write_safetensors(whole_path, tensors, metadata);
  EXPECT_EQ(read_text(path), read_text(whole_path));
}

TEST(SafetensorsWriter, RefusesWhatTheFormatDoesNotHold) {
  const TempDirectory directory;
  const auto path = directory.path() / "out";
  const std::vector<std::byte> data(34);
  const Tensor quantized{"q", DType::kQ8_0, {32}, data};
  const Tensor wrong_size{"w", DType::kF32, {8}, data};
  const std::vector<Tensor> twice(2, Tensor{"t", DType::kF32, {0}, {}});
  const std::vector<Tensor> good = {{"t", DType::kF16, {17}, data}};
  const std::string where = path.string();
  EXPECT_EQ(error_of([&] {
              write_safetensors(path, {&quantized, 1});
            }),
            where + ": tensor q: SafeTensors holds f32, f16 or bf16, got q8_0");
  EXPECT_EQ(error_of([&] {
              write_safetensors(path, {&wrong_size, 1});
            }),
            where + ": tensor w: f32 [8] needs 32 bytes, got 34");
  EXPECT_EQ(error_of([&] { write_safetensors(path, twice); }), where + ": tensor t stands twice");
  EXPECT_THAT(error_of([&] { write_safetensors(path / "absent", good); }), HasSubstr("cannot write"));
}

}  // namespace
}  // namespace llorch
