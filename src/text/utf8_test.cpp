#include "text/utf8.h"

#include <gtest/gtest.h>

namespace llorch {
namespace {

const std::string kBad(kReplacementCharacter);

TEST(Utf8, ReadsWhatItWrites) {
  for (char32_t code = 0; code <= 0x10FFFF; ++code) {
    if (code >= 0xD800 && code <= 0xDFFF) continue;
    std::string text;
    append_utf8(text, code);
    const Utf8Read read = read_utf8(text);
    ASSERT_EQ(read.kind, Utf8Read::Kind::kCharacter) << static_cast<uint32_t>(code);
    ASSERT_EQ(read.code, code);
    ASSERT_EQ(read.bytes, text.size());
    ASSERT_EQ(utf8_length(text[0]), text.size());
  }
}

// The examples of the Unicode standard, tables 3-8 to 3-11.
TEST(Utf8, ReplacesMaximalSubparts) {
  EXPECT_EQ(repair_utf8("\xC0\xAF\xE0\x80\xBF\xF0\x81\x82\x41"),
            kBad + kBad + kBad + kBad + kBad + kBad + kBad + kBad + "A");
  EXPECT_EQ(repair_utf8("\xED\xA0\x80\xED\xBF\xBF\xED\xAF\x41"),
            kBad + kBad + kBad + kBad + kBad + kBad + kBad + kBad + "A");
  EXPECT_EQ(repair_utf8("\xF4\x91\x92\x93\xFF\x41\x80\xBF\x42"),
            kBad + kBad + kBad + kBad + kBad + "A" + kBad + kBad + "B");
  EXPECT_EQ(repair_utf8("\xE1\x80\xE2\xF0\x91\x92\xF1\xBF\x41"), kBad + kBad + kBad + kBad + "A");
  EXPECT_EQ(repair_utf8("a\xF0\x9F\x99"), "a" + kBad);
}

TEST(Utf8, RepairDoesNotDependOnTheCut) {
  const std::string bytes = "a\xC3\xA9\xE6\x97\xA5\xF0\x9F\x99\x82\xF0\x9F\xE6\x97\x80\xC3z\xF0\x9F\x99";
  const std::string whole = repair_utf8(bytes);
  for (size_t first = 0; first <= bytes.size(); ++first) {
    for (size_t second = first; second <= bytes.size(); ++second) {
      Utf8Repair repair;
      std::string out;
      const std::string_view view = bytes;
      for (const auto part : {view.substr(0, first), view.substr(first, second - first), view.substr(second)}) {
        repair.push(part, out);
        EXPECT_TRUE(is_valid_utf8(out));
      }
      repair.finish(out);
      EXPECT_EQ(out, whole);
    }
  }
}

}  // namespace
}  // namespace llorch
