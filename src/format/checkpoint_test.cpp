#include "format/checkpoint.h"

#include <gmock/gmock.h>

#include <cmath>

#include "format/describe.h"
#include "format/files_for_test.h"
#include "format/gguf_builder_for_test.h"
#include "format/safetensors_writer.h"

namespace llorch {
namespace {

using testing::AllOf;
using testing::HasSubstr;

std::string error_of_open(const std::filesystem::path& path) {
  return error_of([&] { Checkpoint::open(path); });
}

class CheckpointTest : public testing::Test {
 protected:
  // A SafeTensors file with one f32 tensor [2] of the given name.
  std::filesystem::path write_tensor(const std::string& file, const std::string& name, float first) {
    const float values[2] = {first, first + 1};
    const Tensor tensor{name, DType::kF32, {2}, std::as_bytes(std::span(values))};
    write_safetensors(directory_.path() / file, {&tensor, 1}, {{"from", file}});
    return directory_.path() / file;
  }
  float first_value(const Checkpoint& checkpoint, std::string_view name) {
    std::vector<float> row(2);
    read_row(checkpoint.at(name), 0, row.data());
    return row[0];
  }
  std::filesystem::path index(const std::string& map) {
    return directory_.write("model.safetensors.index.json",
                            R"({"metadata":{"total_size":16},"weight_map":)" + map + "}");
  }

  TempDirectory directory_;
};

TEST_F(CheckpointTest, OpensADirectoryWithItsConfigurations) {
  write_tensor("model.safetensors", "model.norm.weight", 5);
  directory_.write("config.json", R"({"hidden_size": 2})");
  directory_.write("generation_config.json", R"({"eos_token_id": [1, 2]})");
  Checkpoint opened = Checkpoint::open(directory_.path());
  const Checkpoint checkpoint = std::move(opened);
  EXPECT_EQ(checkpoint.container(), Checkpoint::Container::kSafetensors);
  EXPECT_EQ(checkpoint.path(), directory_.path());
  EXPECT_EQ(checkpoint.config()["hidden_size"], 2);
  EXPECT_EQ(checkpoint.generation_config()["eos_token_id"][1], 2);
  EXPECT_EQ(checkpoint.tokenizer_json(), directory_.path() / "tokenizer.json");
  EXPECT_EQ(checkpoint.safetensors_metadata().at("from"), "model.safetensors");
  EXPECT_EQ(checkpoint.file_bytes(), std::filesystem::file_size(directory_.path() / "model.safetensors"));
  const Tensor& norm = checkpoint.at("output_norm.weight");
  EXPECT_EQ(first_value(checkpoint, "output_norm.weight"), 5);
  checkpoint.prefetch(norm);
  checkpoint.release(norm);
  EXPECT_EQ(first_value(checkpoint, "output_norm.weight"), 5);
  EXPECT_EQ(checkpoint.find("output.weight"), nullptr);
  EXPECT_EQ(error_of([&] { checkpoint.at("output.weight"); }),
            directory_.path().string() + ": tensor output.weight is missing");
  EXPECT_THAT(error_of([&] { checkpoint.metadata(); }),
              HasSubstr("metadata belongs to a GGUF file, got a SafeTensors file"));
  EXPECT_THROW(checkpoint.release(Tensor{"other", DType::kF32, {1}, std::as_bytes(std::span("abc"))}), BugError);
}

TEST_F(CheckpointTest, OpensASingleFileWithoutConfigurations) {
  const auto file = write_tensor("trace.safetensors", "a", 1);
  const Checkpoint checkpoint = Checkpoint::open(file);
  EXPECT_EQ(first_value(checkpoint, "a"), 1);
  EXPECT_TRUE(checkpoint.generation_config().is_null());
  EXPECT_EQ(error_of([&] { checkpoint.config(); }), (directory_.path() / "config.json").string() + ": file is missing");
}

TEST_F(CheckpointTest, OpensShardsFromTheirIndex) {
  write_tensor("model-1.safetensors", "model.norm.weight", 1);
  write_tensor("model-2.safetensors", "lm_head.weight", 3);
  directory_.write("config.json", "{}");
  const auto path = index(R"({"lm_head.weight":"model-2.safetensors","model.norm.weight":"model-1.safetensors"})");
  for (const auto& opened : {path, directory_.path()}) {
    const Checkpoint checkpoint = Checkpoint::open(opened);
    EXPECT_EQ(first_value(checkpoint, "output_norm.weight"), 1);
    EXPECT_EQ(first_value(checkpoint, "output.weight"), 3);
    EXPECT_EQ(checkpoint.files().size(), 2u);
    EXPECT_TRUE(checkpoint.has_config());
    checkpoint.release(checkpoint.at("output.weight"));
    EXPECT_EQ(first_value(checkpoint, "output.weight"), 3);
  }
}

TEST_F(CheckpointTest, ErrorsNameTheShard) {
  write_tensor("a.safetensors", "a", 1);
  write_tensor("b.safetensors", "a", 1);
  const std::string here = directory_.path().string();
  EXPECT_EQ(error_of_open(index(R"({"a":"a.safetensors","z":"absent.safetensors"})")),
            here + "/model.safetensors.index.json: shard " + here + "/absent.safetensors is missing");
  EXPECT_EQ(
      error_of_open(index(R"({"a":"a.safetensors","z":"a.safetensors"})")),
      here + "/a.safetensors: tensor z is missing, which " + here + "/model.safetensors.index.json expects in it");
  EXPECT_EQ(error_of_open(index(R"({"a":"a.safetensors","z":"b.safetensors"})")),
            here + "/b.safetensors: tensor a stands twice");
}

TEST_F(CheckpointTest, ShardsCannotLeaveTheDirectory) {
  for (const std::string name : {"../a.safetensors", "/etc/passwd", "..", ".", "", "x/y", "..\\\\a", "a\\u0000b"}) {
    EXPECT_THAT(error_of_open(index(R"({"a":")" + name + "\"}")), HasSubstr("expected a file name in this directory"))
        << name;
  }
  EXPECT_THAT(error_of_open(index(R"({"a":1})")), HasSubstr("tensor a: expected a file name, got number"));
  EXPECT_THAT(error_of_open(index("[]")), HasSubstr("expected an object \"weight_map\""));
}

TEST_F(CheckpointTest, RefusesWhatIsNoModel) {
  const std::string here = directory_.path().string();
  EXPECT_THAT(error_of_open(directory_.path()),
              HasSubstr("expected model.safetensors or model.safetensors.index.json"));
  EXPECT_THAT(error_of_open(directory_.path() / "absent"), HasSubstr("/absent: cannot open: No such file"));
  EXPECT_EQ(error_of_open(directory_.write("x.gguf", "")),
            here + "/x.gguf: expected a GGUF or SafeTensors file, got an empty file");
  EXPECT_EQ(error_of_open(directory_.write("x.gguf", "<html>\n")),
            here + "/x.gguf: expected a GGUF or SafeTensors file, got a file that begins with \"<html>\\x0a\"");
  EXPECT_THAT(error_of_open(directory_.write("x.gguf", "version https://git-lfs.github.com/spec/v1\n")),
              HasSubstr("got a Git LFS pointer (run git lfs pull)"));
  write_tensor("model.safetensors", "a", 1);
  directory_.write("config.json", "[]");
  EXPECT_EQ(error_of_open(directory_.path()), here + "/config.json: expected a JSON object, got array");
}

TEST_F(CheckpointTest, OpensGguf) {
  GgufBuilder file;
  file.str("general.name", "small").tensor("blk.3.ffn_up.weight", 0, {2, 1}, le(2.5f) + le(3.5f));
  const auto path = directory_.write("anything.bin", file.build());
  const Checkpoint checkpoint = Checkpoint::open(path);
  EXPECT_EQ(checkpoint.container(), Checkpoint::Container::kGguf);
  EXPECT_EQ(checkpoint.metadata().require_str("general.name"), "small");
  EXPECT_EQ(first_value(checkpoint, "layers.3.ffn_up.weight"), 2.5f);
  const std::string got = " belongs to a SafeTensors file, got a GGUF file";
  EXPECT_EQ(error_of([&] { checkpoint.config(); }), path.string() + ": config.json" + got);
  EXPECT_EQ(error_of([&] { checkpoint.generation_config(); }), path.string() + ": generation_config.json" + got);
  EXPECT_EQ(error_of([&] { checkpoint.tokenizer_json(); }), path.string() + ": tokenizer.json" + got);
}

TEST_F(CheckpointTest, DescribesGguf) {
  GgufBuilder file;
  file.str("general.name", "small\x1b[31m").u32("n", 7).pair("eps", GgufType::kF32, le(1e-5f));
  std::string tokens;
  for (int i = 0; i < 1000; ++i) tokens += gguf_string("tok");
  file.array("tokens", GgufType::kString, 1000, tokens).array("i8s", GgufType::kI8, 2, "\xff\x01");
  file.tensor("blk.0.attn_q.weight", 8, {64, 2}, std::string(136, 'x')).tensor("x", 10, {256}, std::string(84, 'y'));
  const std::string text = describe(Checkpoint::open(directory_.write("m.gguf", file.build())));
  EXPECT_THAT(text,
              AllOf(HasSubstr("m.gguf: GGUF\n"), HasSubstr("  general.name = \"small\\x1b[31m\"\n"),
                    HasSubstr("  n = 7\n"), HasSubstr("  eps = 1e-05\n"),
                    HasSubstr("  tokens = 1000 x string [\"tok\", \"tok\", \"tok\", \"tok\", \"tok\", \"tok\", ...]\n"),
                    HasSubstr("  i8s = 2 x i8 [-1, 1]\n")));
  EXPECT_THAT(text, AllOf(HasSubstr("  layers.0.attn_q.weight  q8_0   [2, 64]                    136\n"),
                          HasSubstr("tensors of types that llorch does not read (1)\n"),
                          HasSubstr("  x                       Q2_K   [256]                        ?\n")));
}

TEST_F(CheckpointTest, DescribesSafetensors) {
  write_tensor("model.safetensors", "a\n", 1);
  directory_.write("config.json", R"({"hidden_size": 2, "name": "ü"})");
  const std::string text = describe(Checkpoint::open(directory_.path()));
  EXPECT_THAT(text, AllOf(HasSubstr(": SafeTensors\n"), HasSubstr("  from = \"model.safetensors\"\n"),
                          HasSubstr("  hidden_size = 2\n"), HasSubstr("  name = \"\\u00fc\"\n"),
                          HasSubstr("  a\\x0a  f32    [2]                          8\n")));
}

const std::filesystem::path kShared = LLORCH_SOURCE_DIR "/../shared";

TEST(RealFiles, SmolLm2OpensWholeAndFinite) {
  const auto path = kShared / "models/SmolLM2-135M-Instruct.Q4_1.gguf";
  if (!std::filesystem::exists(path)) GTEST_SKIP() << path << " is absent: real weights are not part of the project";
  const Checkpoint checkpoint = Checkpoint::open(path);
  EXPECT_EQ(checkpoint.tensors().size(), 272u);
  EXPECT_TRUE(checkpoint.unsupported().empty());
  EXPECT_EQ(checkpoint.metadata().require_str("general.architecture"), "llama");
  EXPECT_EQ(checkpoint.find("output.weight"), nullptr);  // tied
  EXPECT_EQ(checkpoint.at("token_embd.weight").shape, (std::vector<int64_t>{49152, 576}));
  EXPECT_EQ(checkpoint.at("token_embd.weight").dtype, DType::kQ8_0);
  EXPECT_EQ(checkpoint.at("layers.29.attn_k.weight").shape, (std::vector<int64_t>{192, 576}));
  EXPECT_EQ(checkpoint.at("layers.0.ffn_down.weight").shape, (std::vector<int64_t>{576, 1536}));
  EXPECT_EQ(checkpoint.at("layers.0.ffn_down.weight").dtype, DType::kQ4_1);
  EXPECT_EQ(checkpoint.metadata().strings("tokenizer.ggml.tokens").size(), 49152u);
  for (const Tensor& tensor : checkpoint.tensors()) {
    std::vector<float> row(static_cast<size_t>(tensor.cols()));
    read_row(tensor, tensor.rows() - 1, row.data());
    for (const float value : row) ASSERT_TRUE(std::isfinite(value) && std::fabs(value) < 100) << tensor.name;
    checkpoint.release(tensor);
  }
}

TEST(RealFiles, VocabularyOnlyFilesOpen) {
  const std::pair<const char*, size_t> kCases[] = {{"llama2", 32000}, {"llama3", 128256}};
  for (const auto& [name, tokens] : kCases) {
    const auto path = kShared / "tokenizers" / name / "vocab.gguf";
    if (!std::filesystem::exists(path)) GTEST_SKIP() << path << " is absent: vocabularies are not part of the project";
    const Checkpoint checkpoint = Checkpoint::open(path);
    EXPECT_TRUE(checkpoint.tensors().empty());
    EXPECT_EQ(checkpoint.metadata().strings("tokenizer.ggml.tokens").size(), tokens);
    EXPECT_EQ(checkpoint.metadata().i32s("tokenizer.ggml.token_type").size(), tokens);
    EXPECT_THAT(describe(checkpoint), HasSubstr(fmt::format("tokenizer.ggml.tokens = {} x string [", tokens)));
  }
}

}  // namespace
}  // namespace llorch
