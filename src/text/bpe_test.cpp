#include "text/bpe.h"

#include <gtest/gtest.h>

#include <map>
#include <random>

#include "text/utf8.h"

namespace llorch {
namespace {

// Tokens a, b, c and what merges make of them at random; some joins have several ways to them.
struct Sample {
  std::vector<std::string> pieces{"a", "b", "c"};
  std::map<std::pair<int32_t, int32_t>, MergeTable::Merge> merges;

  explicit Sample(uint32_t seed) {
    std::mt19937 random(seed);
    for (uint32_t rank = 0; rank < 40; ++rank) {
      const auto left = static_cast<int32_t>(random() % pieces.size());
      const auto right = static_cast<int32_t>(random() % pieces.size());
      const std::string joined = pieces[left] + pieces[right];
      const auto known = std::find(pieces.begin(), pieces.end(), joined);
      const auto id = static_cast<int32_t>(known - pieces.begin());
      if (known == pieces.end()) pieces.push_back(joined);
      merges.try_emplace({left, right}, MergeTable::Merge{rank, id});
    }
  }

  Bpe bpe(Bpe::Options options = {}) const {
    Vocabulary vocabulary(pieces.size());
    for (size_t id = 0; id < pieces.size(); ++id) vocabulary.insert(pieces[id], static_cast<int64_t>(id));
    MergeTable table(1);
    for (const auto& [pair, merge] : merges) table.insert(pair.first, pair.second, merge);
    return Bpe(std::move(vocabulary), std::move(table), options);
  }

  // The definition: the best merge there is, leftmost first, again and again.
  std::vector<int32_t> naive(const std::string& word) const {
    std::vector<int32_t> ids;
    for (const char letter : word) ids.push_back(letter - 'a');
    while (true) {
      const MergeTable::Merge* best = nullptr;
      size_t place = 0;
      for (size_t i = 0; i + 1 < ids.size(); ++i) {
        const auto found = merges.find({ids[i], ids[i + 1]});
        if (found == merges.end() || (best != nullptr && best->rank <= found->second.rank)) continue;
        best = &found->second;
        place = i;
      }
      if (best == nullptr) return ids;
      ids[place] = best->id;
      ids.erase(ids.begin() + static_cast<ptrdiff_t>(place) + 1);
    }
  }
};

std::vector<int32_t> encode(const Bpe& bpe, std::string_view word) {
  std::vector<int32_t> ids;
  Bpe::Scratch scratch;
  bpe.encode(word, ids, scratch);
  return ids;
}

TEST(Bpe, MergesAsDefined) {
  std::mt19937 random(1);
  for (uint32_t seed = 0; seed < 50; ++seed) {
    const Sample sample(seed);
    const Bpe bpe = sample.bpe();
    for (int round = 0; round < 40; ++round) {
      std::string word(random() % 60, 'a');
      for (char& letter : word) letter = static_cast<char>('a' + random() % 3);
      EXPECT_EQ(encode(bpe, word), sample.naive(word)) << word;
    }
  }
}

TEST(Bpe, LongWordsAreNotQuadratic) {
  const Bpe bpe = Sample(5).bpe();
  std::mt19937 random(2);
  std::string word(4'000'000, 'a');  // quadratic time would be hours
  for (char& letter : word) letter = static_cast<char>('a' + random() % 3);
  EXPECT_LT(encode(bpe, word).size(), word.size());
}

TEST(Bpe, UnknownCharacters) {
  Vocabulary pieces(8);
  int64_t id = 0;
  for (const char* piece : {"<unk>", "a", "<0xC3>", "<0xA9>", "b", "ab"}) pieces.insert(piece, id++);
  MergeTable merges(1);
  merges.insert(1, 4, {0, 5});
  const auto with = [&](Bpe::Options options) {
    Vocabulary copy(8);
    for (int64_t i = 0; i < pieces.size(); ++i) copy.insert(*pieces.piece(i), i);
    return Bpe(std::move(copy), merges, options);
  };
  using Ids = std::vector<int32_t>;
  const std::string text = "a\u00E9xyab";
  EXPECT_EQ(encode(with({}), text), (Ids{1, 5}));
  Bpe::Options options;
  options.unk = 0;
  EXPECT_EQ(encode(with(options), text), (Ids{1, 0, 0, 0, 5}));
  options.fuse_unk = true;
  EXPECT_EQ(encode(with(options), text), (Ids{1, 0, 5}));
  options.byte_fallback = true;
  EXPECT_EQ(encode(with(options), text), (Ids{1, 2, 3, 0, 5}));
  options.ignore_merges = true;
  EXPECT_EQ(encode(with(options), "<0xC3>"), (Ids{2}));
}

}  // namespace
}  // namespace llorch
