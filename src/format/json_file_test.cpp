#include "format/json_file.h"

#include <gmock/gmock.h>

#include "format/files_for_test.h"

namespace llorch {
namespace {

using testing::HasSubstr;
using testing::StartsWith;

std::string error_of_text(const std::string& text) {
  return error_of([&] { parse_json(text, "f.json"); });
}

TEST(JsonFile, ParsesWhatJsonAllows) {
  const auto value = parse_json(R"({"a": [1, -2, 3.5, null, true, "ü\u00fc"], "b": {"a": {}}})", "f.json");
  EXPECT_EQ(value["a"][5], "üü");
  EXPECT_EQ(value["b"]["a"], nlohmann::json::object());
}

TEST(JsonFile, RefusesDepthBombs) {
  const auto nested = [](size_t depth) { return std::string(depth, '[') + std::string(depth, ']'); };
  EXPECT_EQ(error_of_text(nested(kMaxJsonDepth)), "(no error)");
  const std::string expected = "f.json: JSON nested deeper than 64";
  EXPECT_EQ(error_of_text(nested(kMaxJsonDepth + 1)), expected);
  EXPECT_EQ(error_of_text(std::string(5'000'000, '[')), expected);
  std::string objects;
  for (int i = 0; i < 100'000; ++i) objects += "{\"a\":";
  EXPECT_EQ(error_of_text(objects), expected);
}

TEST(JsonFile, RefusesAKeyTwiceInOneObjectOnly) {
  EXPECT_EQ(error_of_text(R"({"a": {"b": 1}, "c": {"b": 1}, "d": ["b", "b"]})"), "(no error)");
  EXPECT_EQ(error_of_text(R"({"c": {"b": 1, "a": [], "b": 1}})"), "f.json: key \"b\" stands twice in one object");
  EXPECT_EQ(error_of_text(R"({"b": [{}], "\u0062": 1})"), "f.json: key \"b\" stands twice in one object");
}

TEST(JsonFile, RefusesWhatIsNoJson) {
  for (const std::string text : {"", " ", "{", "{\"a\":}", "[1,]", "nul", "\"\x80\"", "{} {}", "1e999", "\"\n\"",
                                 "{'a': 1}", "// c\n{}", "[\"\\ud800\"]"}) {
    EXPECT_THAT(error_of_text(text), StartsWith("f.json: not valid JSON: ")) << text;
  }
}

TEST(JsonFile, MessagesStayShort) {
  EXPECT_LT(error_of_text(fmt::format("\"{:x<1000000}", "")).size(), 500u);
  const std::string pair = fmt::format("\"{:k<1000000}\":1", "");
  EXPECT_LT(error_of_text(fmt::format("{{{},{}}}", pair, pair)).size(), 500u);
}

TEST(JsonFile, ReadsFilesAndNamesAnAbsentOne) {
  const TempDirectory directory;
  EXPECT_EQ(read_json_file(directory.write("a.json", "[7]"))[0], 7);
  const auto absent = directory.path() / "b.json";
  EXPECT_THAT(error_of([&] { read_json_file(absent); }), HasSubstr(absent.string() + ": cannot open"));
}

TEST(JsonFile, RefusesFilesThatAreTooLarge) {
  const TempDirectory directory;
  const auto path = directory.write("a.json", "[]");
  std::filesystem::resize_file(path, kMaxJsonBytes + 1);  // sparse
  EXPECT_EQ(error_of([&] { read_json_file(path); }),
            path.string() + ": expected at most 100000000 bytes of JSON, got 100000001");
}

}  // namespace
}  // namespace llorch
