#include "text/added_tokens.h"

#include <gtest/gtest.h>

namespace llorch {
namespace {

AddedToken token(std::string content, int32_t id) {
  AddedToken result;
  result.content = std::move(content);
  result.id = id;
  return result;
}

// "text|#id:text|..." so that a case is a line.
std::string split(const AddedTokens& tokens, std::string_view text) {
  std::string out;
  for (const Segment& segment : tokens.split(text)) {
    if (!out.empty()) out += '|';
    if (segment.token) out.append("#").append(std::to_string(*segment.token)).append(":");
    out += text.substr(segment.begin, segment.end - segment.begin);
  }
  return out;
}

TEST(AddedTokens, LeftmostThenLongest) {
  const AddedTokens tokens({token("<a>", 1), token("<a><b>", 2), token("b><c", 3), token("<", 4), token("<a", 5)});
  EXPECT_EQ(split(tokens, "x<a>y"), "x|#1:<a>|y");
  EXPECT_EQ(split(tokens, "<a><b><c>"), "#2:<a><b>|#4:<|c>");
  EXPECT_EQ(split(tokens, "<a<<a>"), "#5:<a|#4:<|#1:<a>");
  EXPECT_EQ(split(tokens, "<a><"), "#1:<a>|#4:<");
  EXPECT_EQ(split(tokens, ""), "");
  EXPECT_EQ(split(AddedTokens(), "<a>"), "<a>");
}

TEST(AddedTokens, TakeWhiteSpaceAndRespectWords) {
  AddedToken left = token("<l>", 1), right = token("<r>", 2), word = token("cat", 3);
  left.lstrip = right.rstrip = word.single_word = true;
  const AddedTokens tokens({left, right, word});
  EXPECT_EQ(split(tokens, "a \u3000<l> b"), "a|#1: \u3000<l>| b");
  EXPECT_EQ(split(tokens, "<r>  <l>  x"), "#2:<r>  |#1:<l>|  x");
  EXPECT_EQ(split(tokens, "cat concat cats (cat) \u00E9cat"), "#3:cat| concat cats (|#3:cat|) \u00E9cat");
}

TEST(AddedTokens, BytesAreUnsigned) {
  const AddedTokens tokens({token("\u00E9", 1), token("\u00E9z", 2), token("e", 3), token("\U0001F642", 4)});
  EXPECT_EQ(split(tokens, "e\u00E9\u00E9z\U0001F642\u00EA"), "#3:e|#1:\u00E9|#2:\u00E9z|#4:\U0001F642|\u00EA");
}

}  // namespace
}  // namespace llorch
