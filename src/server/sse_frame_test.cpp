// A token's frame by hand is what the JSON library writes.
#include "server/sse_frame.h"

#include <gtest/gtest.h>

namespace llorch {
namespace {

void expect_as_by_library(const std::string& text, uint32_t index, int32_t id) {
  std::string out = "before ";
  append_token_frame(out, text, index, id);
  EXPECT_EQ(out, "before " + sse_frame({{"type", "token"}, {"t", text}, {"i", index}, {"id", id}}));
}

TEST(SseFrame, EveryAsciiCharacterIsEscapedAsByTheLibrary) {
  std::string all;
  for (char c = 0; c < 127; ++c) {
    expect_as_by_library(std::string(1, c), 0, 1);
    expect_as_by_library({'a', c, 'b'}, 0, 1);
    all += c;
  }
  expect_as_by_library("\x7f", 0, 1);
  expect_as_by_library(all + all, 7, 8);
}

TEST(SseFrame, OtherTextAndTheLimitsOfNumbers) {
  for (const std::string text : {"", " there", "é", "日本語 \"x\"", "\u2028", "\U0001F600\n", "\uFFFD", "\\\\\"\""}) {
    expect_as_by_library(text, 0, 0);
    expect_as_by_library(text, UINT32_MAX, INT32_MAX);
    expect_as_by_library(text, 2047, INT32_MIN);
  }
}

}  // namespace
}  // namespace llorch
