// Stop strings across borders: every way of cutting a text must give the same result.
#include "server/stop_matcher.h"

#include <gtest/gtest.h>

#include <random>

namespace llorch {
namespace {

struct Result {
  std::string text;
  std::optional<std::string> matched;
  bool operator==(const Result&) const = default;
};

Result feed(const std::vector<std::string>& stops, const std::vector<std::string>& pieces) {
  StopMatcher matcher(stops);
  Result out;
  for (const std::string& piece : pieces) {
    out.text += matcher.push(piece);
    if (matcher.matched()) break;
  }
  out.text += matcher.flush();
  out.matched = matcher.matched();
  return out;
}

TEST(StopMatcher, MatchesInsideOnePieceAndCutsTheRest) {
  EXPECT_EQ(feed({"END"}, {"the ENDless"}), (Result{"the ", "END"}));
}

TEST(StopMatcher, MatchesAcrossPieces) {
  EXPECT_EQ(feed({"\n\nUser:"}, {"hi.\n", "\nUs", "er", ": no"}), (Result{"hi.", "\n\nUser:"}));
}

TEST(StopMatcher, HoldsBackOnlyWhatMayBeABeginning) {
  StopMatcher matcher({"abc"});
  EXPECT_EQ(matcher.push("xab"), "x");
  EXPECT_EQ(matcher.push("a"), "ab");
  EXPECT_EQ(matcher.push("bd"), "abd");
  EXPECT_EQ(matcher.flush(), "");
}

TEST(StopMatcher, AFalseBeginningComesOutAtTheEnd) {
  EXPECT_EQ(feed({"stop!"}, {"please st", "op"}), (Result{"please stop", std::nullopt}));
}

TEST(StopMatcher, OverlappingBeginningsAreNotLost) {
  EXPECT_EQ(feed({"aab"}, {"a", "a", "a", "b"}), (Result{"a", "aab"}));
}

TEST(StopMatcher, TheFirstCompleteOneWinsThenTheLongest) {
  EXPECT_EQ(feed({"bcd", "c"}, {"abcd"}), (Result{"ab", "c"}));
  EXPECT_EQ(feed({"c", "abc"}, {"xabc"}), (Result{"x", "abc"}));
}

TEST(StopMatcher, NothingComesAfterAMatch) {
  StopMatcher matcher({"."});
  EXPECT_EQ(matcher.push("a.b"), "a");
  EXPECT_EQ(matcher.push("c"), "");
  EXPECT_EQ(matcher.flush(), "");
}

TEST(StopMatcher, WithoutStopsNothingIsHeld) {
  StopMatcher matcher({});
  EXPECT_EQ(matcher.push("abc"), "abc");
  EXPECT_EQ(matcher.flush(), "");
}

// The specification, slowly: the first byte at which some stop string ends, and the longest that ends there.
Result slow(const std::vector<std::string>& stops, const std::string& text) {
  for (size_t end = 1; end <= text.size(); ++end) {
    std::optional<std::string> best;
    for (const std::string& stop : stops) {
      const bool ends = end >= stop.size() && text.compare(end - stop.size(), stop.size(), stop) == 0;
      if (ends && (!best || stop.size() > best->size())) best = stop;
    }
    if (best) return {text.substr(0, end - best->size()), best};
  }
  return {text, std::nullopt};
}

TEST(StopMatcher, CutsDoNotMatterOnRandomTexts) {
  std::mt19937 random(1);
  const auto word = [&](size_t max) {
    std::string out(1 + random() % max, 'a');
    for (char& c : out) c = static_cast<char>('a' + random() % 2);
    return out;
  };
  for (int round = 0; round < 20000; ++round) {
    std::vector<std::string> stops(1 + random() % 4);
    for (std::string& stop : stops) stop = word(6);
    const std::string text = word(24);
    std::vector<std::string> pieces;
    for (size_t at = 0; at < text.size();) {
      pieces.push_back(text.substr(at, 1 + random() % 4));
      at += pieces.back().size();
    }
    ASSERT_EQ(feed(stops, pieces), slow(stops, text)) << text;
  }
}

}  // namespace
}  // namespace llorch
