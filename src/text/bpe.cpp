// The merge table and the merging of one word.
#include "text/bpe.h"

#include <algorithm>
#include <bit>

#include "base/error.h"
#include "text/utf8.h"

namespace llorch {
namespace {

constexpr int32_t kJoined = -2;
constexpr uint64_t kEmpty = ~uint64_t{0};  // no pair: ids are not negative

uint64_t pair_of(int32_t left, int32_t right) {
  return (static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32) | static_cast<uint32_t>(right);
}

uint64_t mix(uint64_t x) {  // the finalizer of SplitMix64
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
  return x ^ (x >> 31);
}

// Heap order: the best candidate stands in front.
bool worse(const Bpe::Scratch::Candidate& a, const Bpe::Scratch::Candidate& b) {
  return a.rank != b.rank ? a.rank > b.rank : a.position > b.position;
}

}  // namespace

MergeTable::MergeTable(size_t expected_merges) : slots_(std::bit_ceil(expected_merges * 2 + 2), Slot{kEmpty, {}}) {}

size_t MergeTable::slot_of(uint64_t pair) const {
  const size_t mask = slots_.size() - 1;
  size_t at = mix(pair) & mask;
  while (slots_[at].pair != pair && slots_[at].pair != kEmpty) at = (at + 1) & mask;
  return at;
}

void MergeTable::insert(int32_t left, int32_t right, Merge merge) {
  const uint64_t pair = pair_of(left, right);
  size_t at = slot_of(pair);
  if (slots_[at].pair == kEmpty && ++used_ * 2 > slots_.size()) {
    std::vector<Slot> old(slots_.size() * 2, Slot{kEmpty, {}});
    old.swap(slots_);
    for (const Slot& slot : old)
      if (slot.pair != kEmpty) slots_[slot_of(slot.pair)] = slot;
    at = slot_of(pair);
  }
  slots_[at] = {pair, merge};
}

const MergeTable::Merge* MergeTable::find(int32_t left, int32_t right) const {
  const Slot& slot = slots_[slot_of(pair_of(left, right))];
  return slot.pair == kEmpty ? nullptr : &slot.merge;
}

Bpe::Bpe(Vocabulary vocabulary, MergeTable merges, Options options)
    : vocabulary_(std::move(vocabulary)), merges_(std::move(merges)), options_(options) {
  for (size_t byte = 0; byte < byte_ids_.size(); ++byte)
    byte_ids_[byte] = vocabulary_.find(fmt::format("<0x{:02X}>", byte)).value_or(-1);
  for (size_t code = 0; code < kTableCharacters; ++code) {
    std::string character;
    append_utf8(character, static_cast<char32_t>(code));
    character_ids_[code] = vocabulary_.find(character).value_or(-1);
  }
}

int32_t Bpe::character_id(std::string_view character) const {
  const char32_t code = read_utf8(character).code;
  return code < kTableCharacters ? character_ids_[code] : vocabulary_.find(character).value_or(-1);
}

// Fills symbols, one for each character, or for each byte of an unknown one.
void Bpe::split_characters(std::string_view word, Scratch& scratch) const {
  auto& symbols = scratch.symbols;
  symbols.clear();
  bool unk_waits = false;  // an unknown token is written when the next known character shows where it ends
  const auto add = [&symbols](int32_t id) { symbols.push_back({id, 0, 0}); };
  const auto known_byte = [this](char byte) { return byte_ids_[static_cast<unsigned char>(byte)] >= 0; };
  while (!word.empty()) {
    const std::string_view character = word.substr(0, utf8_length(word[0]));
    word.remove_prefix(character.size());
    if (const int32_t id = character_id(character); id >= 0) {
      if (unk_waits) add(*options_.unk);
      unk_waits = false;
      add(id);
    } else if (options_.byte_fallback && std::all_of(character.begin(), character.end(), known_byte)) {
      for (const char byte : character) add(byte_ids_[static_cast<unsigned char>(byte)]);
    } else if (options_.unk) {
      if (unk_waits && !options_.fuse_unk) add(*options_.unk);
      unk_waits = true;
    }
  }
  if (unk_waits) add(*options_.unk);
  const auto count = static_cast<int32_t>(symbols.size());
  for (int32_t i = 0; i < count; ++i) {
    symbols[i].previous = i - 1;
    symbols[i].next = i + 1 < count ? i + 1 : -1;
  }
}

// Joins neighbours until no merge applies; what went into a neighbour is marked kJoined.
void Bpe::join(Scratch& scratch) const {
  auto& symbols = scratch.symbols;
  auto& queue = scratch.queue;
  queue.clear();
  const auto candidate = [&](int32_t left) {
    const MergeTable::Merge* merge = merges_.find(symbols[left].id, symbols[symbols[left].next].id);
    if (merge != nullptr) queue.push_back({merge->rank, left, merge->id});
    return merge != nullptr;
  };
  for (int32_t i = 0; i + 1 < static_cast<int32_t>(symbols.size()); ++i) candidate(i);
  std::make_heap(queue.begin(), queue.end(), worse);
  while (!queue.empty()) {
    std::pop_heap(queue.begin(), queue.end(), worse);
    const Scratch::Candidate best = queue.back();
    queue.pop_back();
    Scratch::Symbol& left = symbols[best.position];
    if (left.next < 0) continue;  // joined already, or the last symbol
    const MergeTable::Merge* merge = merges_.find(left.id, symbols[left.next].id);
    if (merge == nullptr || merge->id != best.id) continue;  // a neighbour changed meanwhile
    Scratch::Symbol& right = symbols[left.next];
    left.id = best.id;
    left.next = right.next;
    right.next = kJoined;
    if (left.next >= 0) symbols[left.next].previous = best.position;
    if (left.previous >= 0 && candidate(left.previous)) std::push_heap(queue.begin(), queue.end(), worse);
    if (left.next >= 0 && candidate(best.position)) std::push_heap(queue.begin(), queue.end(), worse);
  }
}

void Bpe::encode(std::string_view word, std::vector<int32_t>& ids, Scratch& scratch) const {
  if (options_.ignore_merges) {
    if (const auto id = vocabulary_.find(word)) {
      ids.push_back(*id);
      return;
    }
  }
  split_characters(word, scratch);
  join(scratch);
  for (const Scratch::Symbol& symbol : scratch.symbols)
    if (symbol.next != kJoined) ids.push_back(symbol.id);
}

}  // namespace llorch
