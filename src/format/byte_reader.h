// Bounded little-endian reading from mapped bytes: whoever asks for more than remains gets an Error.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>

#include "base/error.h"

namespace llorch {

class ByteReader {
 public:
  static_assert(std::endian::native == std::endian::little, "files are little-endian and read as they stand");

  // `where` begins the messages: file, and key or tensor if there is one.
  ByteReader(std::span<const std::byte> bytes, std::string where) : bytes_(bytes), where_(std::move(where)) {}

  size_t position() const { return position_; }
  size_t remaining() const { return bytes_.size() - position_; }
  const std::string& where() const { return where_; }
  void set_where(std::string where) { where_ = std::move(where); }

  std::span<const std::byte> take(uint64_t size, std::string_view what) {
    if (size > remaining()) {
      fail("{}: {} needs {} bytes at offset {}, but {} remain", where_, what, size, position_, remaining());
    }
    const auto part = bytes_.subspan(position_, static_cast<size_t>(size));
    position_ += part.size();
    return part;
  }

  template <typename T>
  T number(std::string_view what) {
    T value;
    std::memcpy(&value, take(sizeof(T), what).data(), sizeof(T));
    return value;
  }

  // A 64-bit length and its characters.
  std::string_view text(std::string_view what) {
    const auto part = take(number<uint64_t>(what), what);
    return {reinterpret_cast<const char*>(part.data()), part.size()};
  }

  // Refuses a count of things of `each` bytes or more that cannot fit into what remains, before anyone allocates.
  void expect_room(uint64_t count, uint64_t each, std::string_view what) const {
    if (count > remaining() / each) {
      fail("{}: {} {} of at least {} bytes do not fit in the {} that remain", where_, count, what, each, remaining());
    }
  }

 private:
  std::span<const std::byte> bytes_;
  size_t position_ = 0;
  std::string where_;
};

}  // namespace llorch
