// GGUF files, versions 2 and 3, little-endian: typed metadata and tensors.
// Source: the GGUF specification, https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "format/tensor_table.h"

namespace llorch {

// Types of metadata values, with their numbers in the file.
enum class GgufType : uint32_t {
  kU8 = 0,
  kI8 = 1,
  kU16 = 2,
  kI16 = 3,
  kU32 = 4,
  kI32 = 5,
  kF32 = 6,
  kBool = 7,
  kString = 8,
  kArray = 9,
  kU64 = 10,
  kI64 = 11,
  kF64 = 12,
};

// "u32", "string", ...
std::string_view to_string(GgufType type);

// The key-value pairs of a GGUF file. Views point into the mapped file: the Checkpoint must outlive them. Strings are
// bytes as they stand in the file; nothing promises that they are UTF-8.
class GgufMetadata {
 public:
  struct Value {
    std::string_view key;
    GgufType type;
    GgufType element;                    // type of an array's elements; equals `type` otherwise
    uint64_t count;                      // elements of an array; 1 otherwise
    std::span<const std::byte> payload;  // the value (of a string: its characters; of an array: its elements)
  };

  explicit GgufMetadata(std::filesystem::path file) : file_(std::move(file)) {}
  void add(const Value& value);  // throws Error if the key is there already

  const std::filesystem::path& file() const { return file_; }
  const std::vector<Value>& values() const { return values_; }  // file order
  bool contains(std::string_view key) const { return find(key) != nullptr; }

  // nullopt if the key is absent; Error naming file, key, expected and got if its type is another one. u64 and
  // i64 take every integer type whose value fits; f64 takes f32 and f64.
  std::optional<uint64_t> u64(std::string_view key) const;
  std::optional<int64_t> i64(std::string_view key) const;
  std::optional<double> f64(std::string_view key) const;
  std::optional<bool> boolean(std::string_view key) const;
  std::optional<std::string_view> str(std::string_view key) const;

  // The same, but an absent key is an Error.
  uint64_t require_u64(std::string_view key) const;
  double require_f64(std::string_view key) const;
  std::string_view require_str(std::string_view key) const;

  // Arrays, each call decodes a new one; empty if the key is absent (ask contains() where that differs from an empty
  // array). i32s takes i32 and u32 elements within the range of i32.
  std::vector<std::string_view> strings(std::string_view key) const;
  std::vector<float> floats(std::string_view key) const;
  std::vector<int32_t> i32s(std::string_view key) const;

 private:
  const Value* find(std::string_view key) const;
  const Value* find_array(std::string_view key, std::string_view expected) const;
  [[noreturn]] void wrong_type(const Value& value, std::string_view expected) const;
  [[noreturn]] void missing(std::string_view key) const;

  std::filesystem::path file_;
  std::vector<Value> values_;
  std::map<std::string_view, size_t> places_;
};

// True if the bytes start with GGUF's magic.
bool is_gguf(std::span<const std::byte> bytes);

// Parses the bytes of `file`, adds its tensors to `table` under canonical names and returns its metadata; both point
// into `bytes`. Throws Error naming file, key or tensor, expected and got.
GgufMetadata read_gguf(std::span<const std::byte> bytes, const std::filesystem::path& file, TensorTable& table);

}  // namespace llorch
