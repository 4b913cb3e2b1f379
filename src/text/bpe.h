// Byte pair encoding of one word: characters are joined, best merge first, until no merge applies.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "text/vocabulary.h"

namespace llorch {

// Merges by the pair of ids that they join; a flat hash table, since loading inserts some 300,000 of them.
class MergeTable {
 public:
  struct Merge {
    uint32_t rank;  // lower goes first
    int32_t id;     // of the joined token
  };
  explicit MergeTable(size_t expected_merges);

  void insert(int32_t left, int32_t right, Merge merge);  // a pair's later entry replaces the earlier one
  const Merge* find(int32_t left, int32_t right) const;

 private:
  struct Slot {
    uint64_t pair;
    Merge merge;
  };
  size_t slot_of(uint64_t pair) const;

  std::vector<Slot> slots_;  // size is a power of two; linear probing; at most half full
  size_t used_ = 0;
};

class Bpe {
 public:
  struct Options {
    bool byte_fallback = false;  // an unknown character becomes its bytes' tokens <0x00>..<0xFF>
    bool fuse_unk = false;       // neighbouring unknown characters become one unknown token
    bool ignore_merges = false;  // a word that is a token is taken as it stands
    std::optional<int32_t> unk;  // without it an unknown character is dropped
  };
  // Memory of encode(), so that a text's words share it.
  struct Scratch {
    struct Symbol {
      int32_t id;
      int32_t previous, next;  // -1 at the ends; next is kJoined once this symbol went into its left neighbour
    };
    struct Candidate {
      uint32_t rank;
      int32_t position;  // of the left symbol
      int32_t id;        // of the joined token
    };
    std::vector<Symbol> symbols;
    std::vector<Candidate> queue;
  };

  Bpe(Vocabulary vocabulary, MergeTable merges, Options options);

  // Appends the ids of a word (valid UTF-8). O(n log n) for n characters. Of merges of the same rank the leftmost goes
  // first, as in Hugging Face's tokenizers and in SentencePiece.
  void encode(std::string_view word, std::vector<int32_t>& ids, Scratch& scratch) const;

  const Vocabulary& vocabulary() const { return vocabulary_; }

 private:
  void split_characters(std::string_view word, Scratch& scratch) const;
  void join(Scratch& scratch) const;
  int32_t character_id(std::string_view character) const;  // -1 if unknown

  static constexpr size_t kTableCharacters = 512;  // holds ASCII and all characters that stand for bytes

  Vocabulary vocabulary_;
  MergeTable merges_;
  Options options_;
  std::array<int32_t, 256> byte_ids_;                    // -1 if unknown
  std::array<int32_t, kTableCharacters> character_ids_;  // saves a hash of the commonest characters
};

}  // namespace llorch
