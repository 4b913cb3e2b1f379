#include "text/regex.h"

#include <gtest/gtest.h>

#include "base/error.h"

namespace llorch {
namespace {

std::vector<std::string> matches(const std::string& pattern, const std::string& text) {
  std::vector<std::string> found;
  for (const Span span : Regex(pattern, "test").find_all(text))
    found.push_back(text.substr(span.begin, span.end - span.begin));
  return found;
}

using Strings = std::vector<std::string>;

TEST(Regex, MatchesAsOniguruma) {
  EXPECT_EQ(matches("(?i:'s|'t)|\\p{L}+", "it'S don'T"), (Strings{"it", "'S", "don", "'T"}));
  EXPECT_EQ(matches("\\s+(?!\\S)|\\s+", "a   b "), (Strings{"  ", " ", " "}));
  EXPECT_EQ(matches("[a-c]++c?", "abcabd"), (Strings{"abcab"}));
  EXPECT_EQ(matches("^b$", "a\nb\nc"), (Strings{"b"}));
  EXPECT_EQ(matches("\\s", "a\u180E\u3000\u0085"), (Strings{"\u3000", "\u0085"}));
  EXPECT_EQ(matches("[^\\S ]+", "\t \n"), (Strings{"\t", "\n"}));
  EXPECT_EQ(matches("[]a]+", "x]a"), (Strings{"]a"}));
  EXPECT_EQ(matches("\\h+", "xyz09aFg"), (Strings{"09aF"}));
  EXPECT_EQ(matches("\\w+|\\W", "aé_½!"), (Strings{"aé_½", "!"}));
  EXPECT_EQ(matches("[[:digit:]\\s]+", "a1 2b"), (Strings{"1 2"}));
}

TEST(Regex, EmptyMatchesDoNotTouchTheOneBefore) {
  const std::vector<Span> spans = Regex("b*", "test").find_all("abé");
  EXPECT_EQ(spans, (std::vector<Span>{{0, 0}, {1, 2}, {4, 4}}));
  EXPECT_EQ(Regex("", "test").find_all(""), (std::vector<Span>{{0, 0}}));
}

TEST(Regex, RefusesWhatItWouldMisread) {
  for (const char* pattern : {"[a[b]]", "[a&&b]", "[\\W]", "(*UTF)a", "a(", "[", "\\", "\\C", "(?R"})
    EXPECT_THROW(Regex(pattern, "file: field"), Error) << pattern;
  EXPECT_THROW(Regex(std::string(100'000, 'a'), "file: field"), Error);
  try {
    Regex("a(", "file.json: model.x");
    FAIL();
  } catch (const Error& error) {
    EXPECT_TRUE(std::string_view(error.what()).starts_with("file.json: model.x: the pattern \"a(\"")) << error.what();
  }
}

TEST(Regex, HostilePatternsEnd) {
  const Regex nested("(a+)+$x|((a|aa)+)+b", "test");
  EXPECT_THROW(nested.find_all(std::string(200, 'a')), Error);
  const Regex recursive("(x(?1)*y)*z|(a(?2)?)", "test");
  try {
    recursive.find_all(std::string(2000, 'a') + std::string(2000, 'x'));
  } catch (const Error&) {
  }
}

TEST(Pattern, ReplacesAll) {
  EXPECT_EQ(Pattern(" ").replace_all(" a  b", "\u2581"), "\u2581a\u2581\u2581b");
  EXPECT_EQ(Pattern("").replace_all("ab", "x"), "ab");
  EXPECT_EQ(Pattern(Regex("[ab]+", "test")).replace_all("abxba", "$0"), "$0x$0");
  EXPECT_THROW(Pattern("a").replace_all(std::string(10'000, 'a'), std::string(10'000, 'b')), Error);
}

}  // namespace
}  // namespace llorch
