// Filling the two directions of a vocabulary.
#include "text/vocabulary.h"

#include "base/error.h"
#include "format/printable.h"

namespace llorch {

const std::string*& Vocabulary::slot(const std::string& piece, int64_t id) {
  if (id < 0 || id > kMaxTokenId)
    fail("token \"{}\": expected an id in 0..{}, got {}", printable(piece), kMaxTokenId, id);
  const auto index = static_cast<size_t>(id);
  if (index >= pieces_.size()) pieces_.resize(index + 1, nullptr);
  if (pieces_[index] != nullptr)
    fail("tokens \"{}\" and \"{}\" have the same id {}", printable(*pieces_[index]), printable(piece), id);
  return pieces_[index];
}

void Vocabulary::insert(std::string piece, int64_t id) {
  const std::string*& place = slot(piece, id);
  const auto [entry, fresh] = ids_.try_emplace(std::move(piece), static_cast<int32_t>(id));
  if (!fresh) fail("token \"{}\" has two ids, {} and {}", printable(entry->first), entry->second, id);
  place = &entry->first;
}

void Vocabulary::insert_unlisted(std::string piece, int64_t id) {
  const std::string*& place = slot(piece, id);
  place = &unlisted_.emplace_back(std::move(piece));
}

}  // namespace llorch
