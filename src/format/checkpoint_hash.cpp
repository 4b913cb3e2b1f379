#include "format/checkpoint_hash.h"

#include <fmt/format.h>
#include <xxhash.h>

#include <algorithm>
#include <memory>
#include <new>
#include <string_view>
#include <vector>

namespace llorch {
namespace {

constexpr size_t kPieceBytes = size_t{16} << 20;  // resident at once

class Hash {
 public:
  Hash() {
    if (state_ == nullptr) throw std::bad_alloc();
    XXH3_64bits_reset(state_.get());
  }
  void add(std::span<const std::byte> bytes) { XXH3_64bits_update(state_.get(), bytes.data(), bytes.size()); }
  // A zero ends the text, so that texts do not run into each other.
  void add(const std::string& text) { XXH3_64bits_update(state_.get(), text.c_str(), text.size() + 1); }
  uint64_t value() const { return XXH3_64bits_digest(state_.get()); }

 private:
  std::unique_ptr<XXH3_state_t, decltype(&XXH3_freeState)> state_{XXH3_createState(), &XXH3_freeState};
};

template <typename T>
std::vector<const T*> by_name(const std::vector<T>& tensors) {
  std::vector<const T*> sorted;
  sorted.reserve(tensors.size());
  for (const T& tensor : tensors) sorted.push_back(&tensor);
  std::sort(sorted.begin(), sorted.end(), [](const T* a, const T* b) { return a->name < b->name; });
  return sorted;
}

}  // namespace

uint64_t hash_tensors(const Checkpoint& checkpoint) {
  return hash_each_tensor(checkpoint, [] { return true; })->all;
}

std::optional<TensorHashes> hash_each_tensor(const Checkpoint& checkpoint, const std::function<bool()>& go_on) {
  TensorHashes hashes;
  Hash all;
  for (const Tensor* tensor : by_name(checkpoint.tensors())) {
    const std::string kind = fmt::format("{} {}", to_string(tensor->dtype), shape_string(tensor->shape));
    Hash one;
    all.add(tensor->name);
    all.add(kind);
    one.add(kind);
    Tensor piece = *tensor;
    for (std::span<const std::byte> left = tensor->bytes; !left.empty(); left = left.subspan(piece.bytes.size())) {
      if (!go_on()) return std::nullopt;
      piece.bytes = left.first(std::min(left.size(), kPieceBytes));
      all.add(piece.bytes);
      one.add(piece.bytes);
      checkpoint.release(piece);
    }
    hashes.each[tensor->name] = one.value();
  }
  for (const UnsupportedTensor* tensor : by_name(checkpoint.unsupported())) {
    all.add(tensor->name);
    all.add(fmt::format("{} {}", tensor->type, shape_string(tensor->shape)));
  }
  hashes.all = all.value();
  return hashes;
}

}  // namespace llorch
