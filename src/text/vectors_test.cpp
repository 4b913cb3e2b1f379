// Every vector of Hugging Face's tokenizers: ids, text and streamed text, from tokenizer.json and from GGUF metadata.
#include <gtest/gtest.h>

#include <filesystem>
#include <random>

#include "format/checkpoint.h"
#include "format/json_file.h"
#include "text/json_tokenizer.h"
#include "text/stream_decoder.h"
#include "text/tokenizer.h"
#include "text/utf8.h"

namespace llorch {
namespace {

namespace fs = std::filesystem;

const fs::path kFixtures = fs::path(LLORCH_SOURCE_DIR) / "tests/fixtures/tokenizers";
const fs::path kShared = fs::path(LLORCH_SOURCE_DIR) / "../shared";

using TokenizerPtr = std::shared_ptr<const Tokenizer>;

TokenizerPtr open_json(const fs::path& file) { return std::make_shared<const Tokenizer>(read_tokenizer_files(file)); }

// What the stream gives in all; checks that no push gives half a character.
std::string streamed(const TokenizerPtr& tokenizer, const std::vector<int32_t>& ids, bool skip_special) {
  StreamDecoder stream(tokenizer, skip_special);
  std::string all;
  for (const int32_t id : ids) {
    const std::string text = stream.push(id);
    EXPECT_TRUE(is_valid_utf8(text));
    all += text;
  }
  return all + stream.flush();
}

void check_cases(const TokenizerPtr& tokenizer, const nlohmann::json& file) {
  const nlohmann::json& cases = file.at("cases");
  ASSERT_FALSE(cases.empty());
  std::vector<int32_t> all;
  for (const auto& entry : cases) {
    const auto text = entry.at("text").get<std::string>();
    SCOPED_TRACE("text: " + entry.at("text").dump());
    const auto ids = entry.at("ids").get<std::vector<int32_t>>();
    EXPECT_EQ(tokenizer->encode(text, false), ids);
    EXPECT_EQ(tokenizer->decode(ids, false), entry.at("decoded").get<std::string>());
    EXPECT_EQ(streamed(tokenizer, ids, false), entry.at("decoded").get<std::string>());
    if (entry.contains("with_special")) {
      EXPECT_EQ(tokenizer->encode(text, true), entry.at("with_special").get<std::vector<int32_t>>());
      EXPECT_EQ(tokenizer->decode(ids, true), entry.at("decoded_skip").get<std::string>());
    }
    EXPECT_EQ(streamed(tokenizer, ids, true), tokenizer->decode(ids, true));
    all.insert(all.end(), ids.begin(), ids.end());
  }
  EXPECT_EQ(streamed(tokenizer, all, false), tokenizer->decode(all, false));
}

// Ids at random, which break characters and byte runs everywhere.
void check_random_ids(const TokenizerPtr& tokenizer) {
  std::mt19937 random(7);
  for (int round = 0; round < 200; ++round) {
    std::vector<int32_t> ids(random() % 40);
    // Half of them low: there stand the single bytes.
    for (int32_t& id : ids)
      id = static_cast<int32_t>(random() % (random() % 2 == 0 ? 300 : tokenizer->vocab_size() + 5));
    EXPECT_EQ(streamed(tokenizer, ids, false), tokenizer->decode(ids, false));
  }
}

struct Source {
  const char* name;
  fs::path tokenizer, cases;
};
void PrintTo(const Source& source, std::ostream* out) { *out << source.name; }

class Vectors : public testing::TestWithParam<Source> {};

TEST_P(Vectors, IdsAndTextAreThoseOfHuggingFace) {
  const Source& source = GetParam();
  if (!fs::exists(source.tokenizer) || !fs::exists(source.cases))
    GTEST_SKIP() << source.tokenizer << " is not on this machine; it is test data outside of the repository.";
  const TokenizerPtr tokenizer = source.tokenizer.extension() == ".gguf"
                                     ? Tokenizer::load(Checkpoint::open(source.tokenizer))
                                     : open_json(source.tokenizer);
  check_cases(tokenizer, read_json_file(source.cases));
  check_random_ids(tokenizer);
}

const fs::path kLlama2 = kShared / "tokenizers/llama2", kLlama3 = kShared / "tokenizers/llama3",
               kSmol = kShared / "models/SmolLM2-135M-Instruct";

INSTANTIATE_TEST_SUITE_P(
    Files, Vectors,
    testing::Values(
        Source{"llama2_json", kLlama2 / "tokenizer.json", kLlama2 / "cases.json"},
        Source{"llama2_gguf", kLlama2 / "vocab.gguf", kLlama2 / "cases.json"},
        Source{"llama3_json", kLlama3 / "tokenizer.json", kLlama3 / "cases.json"},
        Source{"llama3_gguf", kLlama3 / "vocab.gguf", kLlama3 / "cases.json"},
        Source{"smollm2_json", kSmol / "tokenizer.json", kSmol / "tokenizer.cases.json"},
        Source{"smollm2_gguf", kShared / "models/SmolLM2-135M-Instruct.Q4_1.gguf", kSmol / "tokenizer.cases.json"},
        Source{"fixture_bytelevel", kFixtures / "bytelevel.json", kFixtures / "bytelevel.cases.json"},
        Source{"fixture_sentencepiece", kFixtures / "sentencepiece.json", kFixtures / "sentencepiece.cases.json"}),
    [](const auto& source) { return std::string(source.param.name); });

// One small model under every component that the other files do not have.
TEST(Variants, EachComponentIsThatOfHuggingFace) {
  const nlohmann::json file = read_json_file(kFixtures / "variants.json");
  for (const auto& variant : file.at("variants")) {
    SCOPED_TRACE("variant: " + variant.at("name").get<std::string>());
    nlohmann::json json = variant.at("tokenizer");
    json["model"] = file.at("model");
    json["model"]["fuse_unk"] = variant.at("fuse_unk");
    check_cases(std::make_shared<const Tokenizer>(make_tokenizer(json, nullptr, "variants.json")), variant);
  }
}

}  // namespace
}  // namespace llorch
