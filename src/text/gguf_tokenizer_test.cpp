#include "text/gguf_tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "format/json_file.h"

namespace llorch {
namespace {

using nlohmann::json;

const std::filesystem::path kFixtures = std::filesystem::path(LLORCH_SOURCE_DIR) / "tests/fixtures/tokenizers";

// A tokenizer.json of the fixtures as a converter would write it, with the strings that the views point into.
struct Converted {
  json file;
  std::vector<std::string> pieces, merges;
  GgufTokenizerData data;

  Converted(const char* name, const char* model, const char* pre) : file(read_json_file(kFixtures / name)) {
    const json& vocab = file.at("model").at("vocab");
    size_t size = vocab.size();
    for (const json& token : file.at("added_tokens")) size = std::max(size, token.at("id").get<size_t>() + 1);
    pieces.resize(size);
    data.types.assign(size, 1);
    for (const auto& [piece, id] : vocab.items()) {
      pieces[id.get<size_t>()] = piece;
      if (piece.size() == 6 && piece.starts_with("<0x")) data.types[id.get<size_t>()] = 6;
    }
    for (const json& token : file.at("added_tokens")) {
      pieces[token.at("id").get<size_t>()] = token.at("content").get<std::string>();
      data.types[token.at("id").get<size_t>()] = token.at("special").get<bool>() ? 3 : 4;
    }
    for (const json& pair : file.at("model").at("merges"))
      merges.push_back(pair[0].get<std::string>() + " " + pair[1].get<std::string>());
    data.file = "t.gguf";
    data.model = model;
    data.pre = pre;
    data.tokens.assign(pieces.begin(), pieces.end());
    data.merges.assign(merges.begin(), merges.end());
  }
};

// GGUF cannot say how added words take white space: texts with them are left out.
void check_cases(const Tokenizer& tokenizer, const char* name) {
  int checked = 0;
  const json file = read_json_file(kFixtures / name);
  for (const json& entry : file.at("cases")) {
    const auto text = entry.at("text").get<std::string>();
    if (text.find("word") != text.npos || text.find("<mask>") != text.npos || text.find("<|tool|>") != text.npos)
      continue;
    SCOPED_TRACE(text);
    const auto ids = entry.at("ids").get<std::vector<int32_t>>();
    EXPECT_EQ(tokenizer.encode(text, false), ids);
    EXPECT_EQ(tokenizer.decode(ids, false), entry.at("decoded").get<std::string>());
    EXPECT_EQ(tokenizer.decode(ids, true), entry.at("decoded_skip").get<std::string>());
    ++checked;
  }
  EXPECT_GT(checked, 40);
}

TEST(GgufTokenizer, ByteLevelGivesTheIdsOfTokenizerJson) {
  const Converted converted("bytelevel.json", "gpt2", "llama-bpe");
  check_cases(Tokenizer(make_tokenizer(converted.data)), "bytelevel.cases.json");
}

TEST(GgufTokenizer, ScoresGiveTheIdsOfTokenizerJson) {
  Converted converted("sentencepiece.json", "llama", "");
  for (size_t id = 0; id < converted.pieces.size(); ++id)
    converted.data.scores.push_back(-static_cast<float>(id));  // the order in which the pieces were made
  converted.data.types[0] = 2;
  converted.data.unknown = 0;
  check_cases(Tokenizer(make_tokenizer(converted.data)), "sentencepiece.cases.json");
}

// Pieces a, b, ab and specials, as plain as can be.
GgufTokenizerData small() {
  GgufTokenizerData data;
  data.file = "t.gguf";
  data.model = "gpt2";
  data.pre = "gpt-2";
  data.tokens = {"a", "b", "ab", "<s>", "</s>", "<eot>"};
  data.types = {1, 1, 1, 3, 3, 3};
  data.merges = {"a b"};
  data.scores = {0, 0, -1, 0, 0, 0};
  data.bos = 3;
  data.eos = 4;
  data.eot = 5;
  return data;
}

using Ids = std::vector<int32_t>;

Ids with_special(const GgufTokenizerData& data) { return Tokenizer(make_tokenizer(data)).encode("ab", true); }

TEST(GgufTokenizer, BosAndEosAsTheFileSays) {
  GgufTokenizerData data = small();
  EXPECT_EQ(with_special(data), (Ids{2}));
  data.pre = "llama-bpe";
  EXPECT_EQ(with_special(data), (Ids{3, 2}));
  data.add_bos = false;
  data.add_eos = true;
  EXPECT_EQ(with_special(data), (Ids{2, 4}));
  data = small();
  data.model = "llama";
  data.add_space_prefix = false;
  EXPECT_EQ(with_special(data), (Ids{3, 2}));
  EXPECT_EQ(make_tokenizer(data).eos, (Ids{4, 5}));
  EXPECT_EQ(make_tokenizer(data).bos, 3);
}

TEST(GgufTokenizer, ErrorsNameKeyExpectedAndGot) {
  const auto error_after = [](const std::function<void(GgufTokenizerData&)>& change) -> std::string {
    GgufTokenizerData data = small();
    change(data);
    try {
      make_tokenizer(data);
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  };
  EXPECT_EQ(error_after([](auto& data) { data.model = "bert"; }),
            "t.gguf: tokenizer.ggml.model: expected \"llama\" or \"gpt2\", got \"bert\"");
  EXPECT_EQ(error_after([](auto& data) { data.pre = "new"; }),
            "t.gguf: tokenizer.ggml.pre: expected one of default, gpt-2, llama-bpe, llama-v3, llama3, qwen2, smollm, "
            "tekken, got \"new\"");
  EXPECT_EQ(error_after([](auto& data) { data.tokens[1] = "\xFF"; }),
            "t.gguf: tokenizer.ggml.tokens[1]: \"\\xff\" is not valid UTF-8");
  EXPECT_EQ(error_after([](auto& data) { data.types.pop_back(); }),
            "t.gguf: tokenizer.ggml.token_type: expected 6 entries, one for each token, got 5");
  EXPECT_EQ(error_after([](auto& data) { data.types[0] = 9; }),
            "t.gguf: tokenizer.ggml.token_type[0]: expected 1..6, got 9");
  EXPECT_EQ(error_after([](auto& data) { data.merges[0] = "a c"; }),
            "t.gguf: tokenizer.ggml.merges[0]: \"a c\" needs the token \"c\", which is not there");
  EXPECT_EQ(error_after([](auto& data) { data.merges[0] = ""; }),
            "t.gguf: tokenizer.ggml.merges[0]: expected \"left right\", got \"\"");
  EXPECT_EQ(error_after([](auto& data) { data.eos = 1u << 31; }),
            "t.gguf: tokenizer.ggml.eos_token_id: expected an id below 6, got 2147483648");
  EXPECT_THAT(error_after([](auto& data) {
                data.model = "llama";
                data.scores.pop_back();
              }),
              testing::HasSubstr("tokenizer.ggml.scores: expected 6 entries"));
  EXPECT_THAT(error_after([](auto& data) {
                data.model = "llama";
                data.scores[0] = std::nanf("");
              }),
              testing::HasSubstr("got a NaN"));
  EXPECT_THAT(error_after([](auto& data) { data.tokens.clear(); }), testing::HasSubstr("at least one token"));
}

}  // namespace
}  // namespace llorch
