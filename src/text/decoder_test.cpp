#include "text/decoder.h"

#include <gtest/gtest.h>

#include "base/error.h"

namespace llorch {
namespace {

const std::string kBad(kReplacementCharacter);

// What each push gives, and the end, separated by '|'.
std::string pushes(const Decoder& decoder, const std::vector<std::string>& pieces) {
  DecoderRun run(decoder);
  std::string all;
  for (const std::string& piece : pieces) {
    run.push(piece, all);
    all += '|';
  }
  run.finish(all);
  return all;
}

Decoder sentence_piece() {
  return Decoder(
      {Decoder::Replace{Pattern("\u2581"), " "}, Decoder::ByteFallback{}, Decoder::Fuse{}, Decoder::Strip{" ", 1, 0}});
}

TEST(Decoder, ByteLevelHoldsBackPartsOfCharacters) {
  const Decoder decoder({Decoder::ByteLevel{}});
  EXPECT_EQ(pushes(decoder, {"\u0120a", "\u00E6", "\u0139", "\u00A5", "b"}), " a|||\u65E5|b|");  // bytes E6, 97, A5
  EXPECT_EQ(pushes(decoder, {"\u00C3", "\u00A9"}), "|\u00E9|");
  EXPECT_EQ(pushes(decoder, {"\u00C3", "a"}), "|" + kBad + "a|");
  EXPECT_EQ(pushes(decoder, {"\u00C3"}), "|" + kBad);
  EXPECT_EQ(pushes(decoder, {"a b", "<s>"}), "a b|<s>|");  // not of the alphabet: as it stands
}

TEST(Decoder, SentencePieceStripsOneSpaceOfTheStart) {
  EXPECT_EQ(pushes(sentence_piece(), {"\u2581\u2581a", "\u2581b"}), " a| b|");
  EXPECT_EQ(pushes(sentence_piece(), {"\u2581", "\u2581", "a"}), "| |a|");
  EXPECT_EQ(pushes(sentence_piece(), {"a", "\u2581"}), "a| |");
}

TEST(Decoder, AByteRunIsTextOrReplacedWhole) {
  EXPECT_EQ(pushes(sentence_piece(), {"<0xC3>", "<0xA9>", "x"}), "||\u00E9x|");
  EXPECT_EQ(pushes(sentence_piece(), {"<0xC3>", "<0xA9>", "<0xFF>", "x"}), "|||" + kBad + kBad + kBad + "x|");
  EXPECT_EQ(pushes(sentence_piece(), {"<0x41>"}), "|A");
  EXPECT_EQ(pushes(sentence_piece(), {"<0xZZ>", "<0x041>"}), "<0xZZ>|<0x041>|");
}

TEST(Decoder, StripAtTheEndHoldsBack) {
  const Decoder decoder({Decoder::Fuse{}, Decoder::Strip{"-", 1, 2}});
  EXPECT_EQ(pushes(decoder, {"--", "a--", "-", "b-", "--"}), "|-a|-|--b|-|");
  EXPECT_EQ(pushes(decoder, {"-", "-", "-"}), "|||");
}

TEST(Decoder, StepsThatNeedTokensMayNotFollowFuse) {
  EXPECT_THROW(Decoder({Decoder::Fuse{}, Decoder::Replace{Pattern("a"), "b"}}), Error);
  EXPECT_THROW(Decoder({Decoder::ByteLevel{}, Decoder::ByteFallback{}}), Error);
  EXPECT_NO_THROW(Decoder({Decoder::ByteLevel{}, Decoder::Fuse{}, Decoder::Strip{" ", 1, 1}}));
}

}  // namespace
}  // namespace llorch
