// Typed access to the metadata of a GGUF file.
#include <cstring>
#include <limits>

#include "base/error.h"
#include "format/byte_reader.h"
#include "format/gguf.h"
#include "format/printable.h"

namespace llorch {
namespace {

template <typename T>
T load(std::span<const std::byte> payload, size_t index = 0) {
  T value;
  std::memcpy(&value, payload.data() + index * sizeof(T), sizeof(T));
  return value;
}

struct Integer {
  bool negative;
  uint64_t bits;  // two's complement if negative
};

template <typename T>
Integer load_integer(std::span<const std::byte> payload) {
  const T value = load<T>(payload);
  return {value < 0, static_cast<uint64_t>(value)};
}

// nullopt if the value is of another type.
std::optional<Integer> integer_of(const GgufMetadata::Value& value) {
  switch (value.type) {
    case GgufType::kU8:
      return Integer{false, load<uint8_t>(value.payload)};
    case GgufType::kU16:
      return Integer{false, load<uint16_t>(value.payload)};
    case GgufType::kU32:
      return Integer{false, load<uint32_t>(value.payload)};
    case GgufType::kU64:
      return Integer{false, load<uint64_t>(value.payload)};
    case GgufType::kI8:
      return load_integer<int8_t>(value.payload);
    case GgufType::kI16:
      return load_integer<int16_t>(value.payload);
    case GgufType::kI32:
      return load_integer<int32_t>(value.payload);
    case GgufType::kI64:
      return load_integer<int64_t>(value.payload);
    case GgufType::kF32:
    case GgufType::kF64:
    case GgufType::kBool:
    case GgufType::kString:
    case GgufType::kArray:
      return std::nullopt;
  }
  return std::nullopt;
}

// What stands in the file, for messages: "array of f32", "string", "i32 -7".
std::string got_text(const GgufMetadata::Value& value) {
  if (value.type == GgufType::kArray) return fmt::format("array of {}", to_string(value.element));
  if (const auto integer = integer_of(value)) {
    return integer->negative ? fmt::format("{} {}", to_string(value.type), static_cast<int64_t>(integer->bits))
                             : fmt::format("{} {}", to_string(value.type), integer->bits);
  }
  return std::string(to_string(value.type));
}

}  // namespace

std::string_view to_string(GgufType type) {
  switch (type) {
    case GgufType::kU8:
      return "u8";
    case GgufType::kI8:
      return "i8";
    case GgufType::kU16:
      return "u16";
    case GgufType::kI16:
      return "i16";
    case GgufType::kU32:
      return "u32";
    case GgufType::kI32:
      return "i32";
    case GgufType::kF32:
      return "f32";
    case GgufType::kBool:
      return "bool";
    case GgufType::kString:
      return "string";
    case GgufType::kArray:
      return "array";
    case GgufType::kU64:
      return "u64";
    case GgufType::kI64:
      return "i64";
    case GgufType::kF64:
      return "f64";
  }
  return "?";
}

void GgufMetadata::add(const Value& value) {
  if (!places_.emplace(value.key, values_.size()).second) {
    fail("{}: key {} stands twice", file_.string(), printable(value.key));
  }
  values_.push_back(value);
}

const GgufMetadata::Value* GgufMetadata::find(std::string_view key) const {
  const auto place = places_.find(key);
  return place == places_.end() ? nullptr : &values_[place->second];
}

void GgufMetadata::wrong_type(const Value& value, std::string_view expected) const {
  fail("{}: key {}: expected {}, got {}", file_.string(), printable(value.key), expected, got_text(value));
}

void GgufMetadata::missing(std::string_view key) const { fail("{}: key {} is missing", file_.string(), key); }

std::optional<uint64_t> GgufMetadata::u64(std::string_view key) const {
  const Value* value = find(key);
  if (value == nullptr) return std::nullopt;
  const auto integer = integer_of(*value);
  if (!integer || integer->negative) wrong_type(*value, "an integer of 0 or more");
  return integer->bits;
}

std::optional<int64_t> GgufMetadata::i64(std::string_view key) const {
  const Value* value = find(key);
  if (value == nullptr) return std::nullopt;
  const auto integer = integer_of(*value);
  if (!integer || (!integer->negative && integer->bits > INT64_MAX)) wrong_type(*value, "an integer within i64");
  return static_cast<int64_t>(integer->bits);
}

std::optional<double> GgufMetadata::f64(std::string_view key) const {
  const Value* value = find(key);
  if (value == nullptr) return std::nullopt;
  if (value->type == GgufType::kF32) return load<float>(value->payload);
  if (value->type != GgufType::kF64) wrong_type(*value, "f32 or f64");
  return load<double>(value->payload);
}

std::optional<bool> GgufMetadata::boolean(std::string_view key) const {
  const Value* value = find(key);
  if (value == nullptr) return std::nullopt;
  if (value->type != GgufType::kBool) wrong_type(*value, "bool");
  return load<uint8_t>(value->payload) != 0;
}

std::optional<std::string_view> GgufMetadata::str(std::string_view key) const {
  const Value* value = find(key);
  if (value == nullptr) return std::nullopt;
  if (value->type != GgufType::kString) wrong_type(*value, "string");
  return std::string_view(reinterpret_cast<const char*>(value->payload.data()), value->payload.size());
}

uint64_t GgufMetadata::require_u64(std::string_view key) const {
  if (const auto value = u64(key)) return *value;
  missing(key);
}

double GgufMetadata::require_f64(std::string_view key) const {
  if (const auto value = f64(key)) return *value;
  missing(key);
}

std::string_view GgufMetadata::require_str(std::string_view key) const {
  if (const auto value = str(key)) return *value;
  missing(key);
}

std::vector<std::string_view> GgufMetadata::strings(std::string_view key) const {
  const Value* value = find(key);
  if (value == nullptr) return {};
  if (value->type != GgufType::kArray || value->element != GgufType::kString) wrong_type(*value, "array of string");
  std::vector<std::string_view> out;
  out.reserve(static_cast<size_t>(value->count));
  ByteReader reader(value->payload, fmt::format("{}: key {}", file_.string(), printable(key)));
  for (uint64_t i = 0; i < value->count; ++i) out.push_back(reader.text("string"));
  return out;
}

std::vector<float> GgufMetadata::floats(std::string_view key) const {
  const Value* value = find(key);
  if (value == nullptr) return {};
  if (value->type != GgufType::kArray || value->element != GgufType::kF32) wrong_type(*value, "array of f32");
  std::vector<float> out(static_cast<size_t>(value->count));
  if (!out.empty()) std::memcpy(out.data(), value->payload.data(), value->payload.size());
  return out;
}

std::vector<int32_t> GgufMetadata::i32s(std::string_view key) const {
  const Value* value = find(key);
  if (value == nullptr) return {};
  const bool is_signed = value->element == GgufType::kI32;
  if (value->type != GgufType::kArray || (!is_signed && value->element != GgufType::kU32)) {
    wrong_type(*value, "array of i32 or u32");
  }
  std::vector<int32_t> out(static_cast<size_t>(value->count));
  for (size_t i = 0; i < out.size(); ++i) {
    out[i] = load<int32_t>(value->payload, i);
    if (!is_signed && out[i] < 0) {
      fail("{}: key {}: element {}: expected at most {}, got {}", file_.string(), printable(key), i,
           std::numeric_limits<int32_t>::max(), static_cast<uint32_t>(out[i]));
    }
  }
  return out;
}

}  // namespace llorch
