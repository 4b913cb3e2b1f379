#include "text/json_tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <random>

#include "base/error.h"
#include "format/json_file.h"
#include "text/stream_decoder.h"
#include "text/utf8.h"

namespace llorch {
namespace {

using nlohmann::json;

const std::filesystem::path kFixtures = std::filesystem::path(LLORCH_SOURCE_DIR) / "tests/fixtures/tokenizers";

json small() {
  return json::parse(R"({
    "added_tokens": [{"id": 4, "content": "<s>", "special": true, "normalized": false},
                     {"id": 3, "content": "ab"}],
    "normalizer": null, "pre_tokenizer": null, "post_processor": null, "decoder": {"type": "Fuse"},
    "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "c": 7, "ab": 3}, "merges": ["a b"]}})");
}

std::string error_of(const json& tokenizer) {
  try {
    Tokenizer(make_tokenizer(tokenizer, nullptr, "t.json"));
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

// The error after the value at a JSON pointer is replaced.
std::string error_with(const char* pointer, const json& value) {
  json tokenizer = small();
  tokenizer[json::json_pointer(pointer)] = value;
  return error_of(tokenizer);
}

TEST(JsonTokenizer, IdsMayHaveHoles) {
  const Tokenizer tokenizer(make_tokenizer(small(), nullptr, "t.json"));
  EXPECT_EQ(tokenizer.vocab_size(), 8u);
  EXPECT_EQ(tokenizer.encode("<s>cab", true), (std::vector<int32_t>{4, 7, 3}));
  EXPECT_EQ(tokenizer.decode(std::vector<int32_t>{4, 5, -1, 99, 7}, false), "<s>c");
  EXPECT_EQ(tokenizer.decode(std::vector<int32_t>{4, 7}, true), "c");
  EXPECT_TRUE(tokenizer.is_special(4));
  EXPECT_FALSE(tokenizer.is_special(3));
  EXPECT_EQ(tokenizer.piece(7), "c");
  EXPECT_EQ(tokenizer.piece(6), "");
}

TEST(JsonTokenizer, InvalidUtf8IsReadAsReplacementCharacters) {
  json tokenizer = small();
  tokenizer["model"]["vocab"]["\uFFFD"] = 9;
  EXPECT_EQ(Tokenizer(make_tokenizer(tokenizer, nullptr, "t.json")).encode("a\xE6\x97\xFFZ", false),
            (std::vector<int32_t>{0, 9, 9}));
}

TEST(JsonTokenizer, ConfigNamesBosAndEos) {
  const json config = {{"bos_token", {{"content", "<s>"}}}, {"eos_token", "ab"}};
  const TokenizerParts parts = make_tokenizer(small(), config, "t.json");
  EXPECT_EQ(parts.bos, 4);
  EXPECT_EQ(parts.eos, std::vector<int32_t>{3});
}

TEST(JsonTokenizer, ErrorsNameFieldExpectedAndGot) {
  const auto expect = [](const char* pointer, const json& value, const std::string& message) {
    EXPECT_EQ(error_with(pointer, value), "t.json: " + message);
  };
  expect("/model/type", "Unigram", "model: a model of type \"Unigram\" is not supported; known: BPE");
  expect("/model/vocab/a", -1, "model.vocab: token \"a\": expected an id in 0..4194303, got -1");
  expect("/model/vocab/a", 1e30, "model.vocab: token \"a\": expected an id in 0..4194303, got 1e+30");
  expect("/model/vocab/a", 18446744073709551615u,
         "model.vocab: token \"a\": expected an id in 0..4194303, got 18446744073709551615");
  expect("/model/vocab/a", 1, "model.vocab: tokens \"a\" and \"b\" have the same id 1");
  expect("/model/vocab", 5, "model.vocab: expected an object of tokens and ids, got 5");
  expect("/model/merges/0", "a x", "model.merges[0]: the merge needs the token \"x\", which is not in the vocabulary");
  expect("/model/merges/0", "a", "model.merges[0]: expected \"left right\" or [\"left\", \"right\"], got \"a\"");
  expect("/model/merges/0", {"b", "a"},
         "model.merges[0]: the merge needs the token \"ba\", which is not in the vocabulary");
  expect("/model/unk_token", "?", "model.unk_token: expected a token of the vocabulary, got \"?\"");
  expect("/model/dropout", 0.1, "model.dropout: expected none (a random tokenizer is not supported), got 0.1");
  expect("/model/merges", nullptr, "model: \"merges\" is missing");
  expect("/added_tokens/0/id", 7, "added_tokens[0]: tokens \"c\" and \"<s>\" have the same id 7");
  expect("/added_tokens/1/id", 5, "added_tokens[1]: \"ab\" has id 3 in the vocabulary, got 5");
  expect("/added_tokens/1/special", 1, "added_tokens[1].special: expected true or false, got 1");
  expect("/decoder", {{"type", "CTC"}},
         "decoder: a decoder of type \"CTC\" is not supported; known: Sequence, ByteLevel, Replace, ByteFallback, "
         "Fuse, Strip, Metaspace");
  expect("/decoder", json::parse(R"({"type": "Sequence", "decoders": [{"type": "Fuse"}, {"type": "ByteLevel"}]})"),
         "decoder: after Fuse or ByteLevel only Fuse and Strip are supported, step 1 is another");
  expect("/normalizer", json::parse(R"({"type": "Sequence", "normalizers": [{"type": "Bert"}]})"),
         "normalizer.normalizers[0]: a normalizer of type \"Bert\" is not supported; known: Sequence, Prepend, "
         "Replace, NFC, NFD, NFKC, NFKD, Lowercase, Strip, StripAccents");
  expect("/pre_tokenizer", json::parse(R"({"type": "Split", "pattern": {"Regex": "("}, "behavior": "Isolated"})"),
         "pre_tokenizer.pattern.Regex: the pattern \"(\" does not compile: missing closing parenthesis");
  expect("/post_processor", {{"type", "BertProcessing"}},
         "post_processor: a post-processor of type \"BertProcessing\" is not supported; known: ByteLevel, "
         "TemplateProcessing, Sequence");
  expect("/post_processor",
         json::parse(R"({"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "x"}}, {"Sequence": {}}],
                         "special_tokens": {"x": {"ids": [70]}}})"),
         "post_processor.special_tokens.x.ids[0]: expected the id of a token, got 70");
  EXPECT_THAT(error_with("/added_tokens/0/content", std::string(5000, 'x')), testing::HasSubstr("at most 1024 bytes"));
}

TEST(JsonTokenizer, DeepFilesAreRefused) {
  std::string deep = R"({"normalizer": )";
  for (int i = 0; i < 100'000; ++i) deep += R"({"type": "Sequence", "normalizers": [)";
  EXPECT_THROW(parse_json(deep, "t.json"), Error);
}

// Uses a tokenizer that came out of a mutated file: anything but a crash, or text that is not UTF-8, is right.
void use(TokenizerParts parts) {
  const auto tokenizer = std::make_shared<const Tokenizer>(std::move(parts));
  const std::string text = "Once <s>upon \u00E9 \U0001F642  12,345 <|tool|> word\n\n the river\xFF";
  const auto ids = tokenizer->encode(text, true);
  EXPECT_TRUE(is_valid_utf8(tokenizer->decode(ids, false)));
  StreamDecoder stream(tokenizer, true);
  std::string streamed;
  for (const int32_t id : ids) streamed += stream.push(id);
  EXPECT_EQ(streamed + stream.flush(), tokenizer->decode(ids, true));
}

struct Fuzz {
  int loaded = 0, refused = 0;

  void run(const std::function<TokenizerParts()>& make) {
    try {
      use(make());
      ++loaded;
    } catch (const Error& error) {
      EXPECT_STRNE(error.what(), "");
      ++refused;
    }
  }
};

// Replaces values anywhere in the JSON by values that do not belong there.
TEST(JsonTokenizer, FuzzedValuesAreRefusedOrLoad) {
  const std::vector<json> values{nullptr,
                                 true,
                                 -1,
                                 0,
                                 7,
                                 1e300,
                                 18446744073709551615u,
                                 "",
                                 "a",
                                 "a b",
                                 "\u2581",
                                 "(",
                                 std::string("\0", 1),
                                 std::string(2000, 'x'),
                                 json::array(),
                                 json::object(),
                                 json{"a", "b"},
                                 json{{"type", "Fuse"}},
                                 json{{"type", "ByteLevel"}},
                                 json{{"String", ""}},
                                 json{{"Regex", "(a*)*"}},
                                 json{{"Regex", "(?<=a)|$"}}};
  std::mt19937 random(11);
  Fuzz fuzz;
  std::vector<json> seeds{read_json_file(kFixtures / "bytelevel.json"),
                          read_json_file(kFixtures / "sentencepiece.json")};
  const json variants = read_json_file(kFixtures / "variants.json");
  for (const auto& variant : variants.at("variants")) {
    seeds.push_back(variant.at("tokenizer"));
    seeds.back()["model"] = variants.at("model");
  }
  for (int round = 0; round < 3000; ++round) {
    json tokenizer = seeds[random() % seeds.size()];
    for (uint32_t change = 0; change < 1 + random() % 2; ++change) {
      json* place = &tokenizer;
      while (place->is_structured() && !place->empty() && (place == &tokenizer || random() % 6 != 0))
        place = &*std::next(place->begin(), static_cast<ptrdiff_t>(random() % place->size()));
      *place = values[random() % values.size()];
    }
    fuzz.run([&] { return make_tokenizer(tokenizer, nullptr, "t.json"); });
  }
  EXPECT_GT(fuzz.loaded, 100);
  EXPECT_GT(fuzz.refused, 100);
}

// Changes, drops and repeats bytes of the file.
TEST(JsonTokenizer, FuzzedBytesAreRefusedOrLoad) {
  std::mt19937 random(12);
  Fuzz fuzz;
  for (const char* name : {"bytelevel.json", "sentencepiece.json"}) {
    std::ifstream file(kFixtures / name, std::ios::binary);
    const std::string good{std::istreambuf_iterator<char>(file), {}};
    ASSERT_FALSE(good.empty());
    for (int round = 0; round < 600; ++round) {
      std::string bad = good;
      for (uint32_t change = 0; change < 1 + random() % 3; ++change) {
        const size_t at = random() % bad.size();
        const uint32_t kind = random() % 4;
        if (kind == 0) bad[at] = static_cast<char>(random());
        if (kind == 1) bad[at] = "\"{}[],:0-\\"[random() % 10];
        if (kind == 2) bad.erase(at, 1 + random() % 20);
        if (kind == 3) bad.insert(at, bad.substr(random() % bad.size(), random() % 30));
      }
      fuzz.run([&] { return make_tokenizer(parse_json(bad, "t.json"), nullptr, "t.json"); });
    }
  }
  EXPECT_GT(fuzz.refused, 100);
}

}  // namespace
}  // namespace llorch
