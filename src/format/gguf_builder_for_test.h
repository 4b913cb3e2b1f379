// Builds small GGUF files in memory for tests, also wrong ones: nothing here checks anything.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "format/gguf.h"

namespace llorch {

// The little-endian bytes of a number.
template <typename T>
std::string le(T value) {
  return {reinterpret_cast<const char*>(&value), sizeof(T)};
}

// A 64-bit length and the characters, as GGUF stores strings.
inline std::string gguf_string(std::string_view text) { return le<uint64_t>(text.size()) + std::string(text); }

class GgufBuilder {
 public:
  static constexpr uint64_t kNext = UINT64_MAX;  // an offset: behind the tensor before

  uint32_t version = 3;
  uint64_t alignment = 32;

  GgufBuilder& pair(std::string_view key, GgufType type, const std::string& payload) {
    pairs_ += gguf_string(key) + le(static_cast<uint32_t>(type)) + payload;
    ++n_pairs_;
    return *this;
  }
  GgufBuilder& str(std::string_view key, std::string_view text) {
    return pair(key, GgufType::kString, gguf_string(text));
  }
  GgufBuilder& u32(std::string_view key, uint32_t value) { return pair(key, GgufType::kU32, le(value)); }
  GgufBuilder& array(std::string_view key, GgufType element, uint64_t count, const std::string& payload) {
    return pair(key, GgufType::kArray, le(static_cast<uint32_t>(element)) + le(count) + payload);
  }

  // `dimensions` in the file's order: the contiguous one first.
  GgufBuilder& tensor(std::string_view name, uint32_t type, const std::vector<uint64_t>& dimensions,
                      const std::string& data, uint64_t offset = kNext) {
    data_.resize((data_.size() + alignment - 1) / alignment * alignment, '\0');
    directory_ += gguf_string(name) + le(static_cast<uint32_t>(dimensions.size()));
    for (const uint64_t size : dimensions) directory_ += le(size);
    directory_ += le(type) + le(offset == kNext ? static_cast<uint64_t>(data_.size()) : offset);
    data_ += data;
    ++n_tensors_;
    return *this;
  }

  std::string build() const { return build(n_tensors_, n_pairs_); }

  // With counts that need not be true.
  std::string build(uint64_t tensors, uint64_t pairs) const {
    std::string file = "GGUF" + le(version) + le(tensors) + le(pairs) + pairs_ + directory_;
    if (!data_.empty()) file.resize((file.size() + alignment - 1) / alignment * alignment, '\0');
    return file + data_;
  }

 private:
  std::string pairs_;
  std::string directory_;
  std::string data_;
  uint64_t n_pairs_ = 0;
  uint64_t n_tensors_ = 0;
};

}  // namespace llorch
