// Token pieces and their ids, both ways.
#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace llorch {

inline constexpr int64_t kMaxTokenId = (1 << 22) - 1;  // the largest vocabularies have some 2^18 ids

class Vocabulary {
 public:
  explicit Vocabulary(size_t expected_tokens) {
    ids_.reserve(expected_tokens);
    pieces_.reserve(expected_tokens);
  }
  Vocabulary(Vocabulary&&) = default;
  Vocabulary& operator=(Vocabulary&&) = default;

  // Ids may come in any order and leave holes. Throw Error if the id is out of range or taken, or the piece is known.
  void insert(std::string piece, int64_t id);
  // The same for a token that the merges must not see: it has an id, but find() does not know it.
  void insert_unlisted(std::string piece, int64_t id);

  std::optional<int32_t> find(std::string_view piece) const {
    const auto found = ids_.find(piece);
    return found == ids_.end() ? std::nullopt : std::optional(found->second);
  }
  // nullptr for an id that has no token.
  const std::string* piece(int64_t id) const {
    return id >= 0 && id < size() ? pieces_[static_cast<size_t>(id)] : nullptr;
  }
  int64_t size() const { return static_cast<int64_t>(pieces_.size()); }  // highest id + 1

 private:
  struct Hash {
    using is_transparent = void;
    size_t operator()(std::string_view text) const { return std::hash<std::string_view>{}(text); }
  };
  const std::string*& slot(const std::string& piece, int64_t id);

  std::unordered_map<std::string, int32_t, Hash, std::equal_to<>> ids_;
  std::deque<std::string> unlisted_;
  std::vector<const std::string*> pieces_;  // point into ids_ and unlisted_, whose elements never move
};

}  // namespace llorch
