#include "trace/json_fields.h"

#include <fmt/format.h>

#include <cmath>

#include "base/error.h"
#include "format/printable.h"

namespace llorch {
namespace {

using nlohmann::json;

// At most 40 bytes of the value: a hostile one may be a megabyte.
std::string shown(const json& value) {
  if (value.is_object() || value.is_array()) return fmt::format("an {} of {}", value.type_name(), value.size());
  if (value.is_string()) return fmt::format("\"{}\"", printable(value.get_ref<const std::string&>(), 40));
  return printable(value.dump(), 40);
}

std::string member(const std::string& field, size_t index) { return fmt::format("{}[{}]", field, index); }

bool is_hash(const json& value) {
  if (!value.is_string()) return false;
  const auto& text = value.get_ref<const std::string&>();
  return text.size() == 16 && text.find_first_not_of("0123456789abcdef") == std::string::npos;
}

uint64_t to_hash(const json& value) { return std::stoull(value.get_ref<const std::string&>(), nullptr, 16); }

bool is_text(const json& value) {
  if (!value.is_string()) return false;
  for (const char c : value.get_ref<const std::string&>())
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) return false;
  return true;
}

constexpr const char* kText = "a text without control characters";
constexpr const char* kHash = "16 hex digits";

}  // namespace

JsonFields::JsonFields(const json& value, std::string where) : object_(value), where_(std::move(where)) {
  if (!value.is_object()) fail("{}: expected an object, got {}", where_, shown(value));
}

void JsonFields::refuse(const std::string& field, const std::string& expected, const std::string& got) const {
  fail("{}: {}: expected {}, got {}", where_, printable(field), expected, got);
}

void JsonFields::refuse(const std::string& field, const std::string& expected, const json& got) const {
  refuse(field, expected, shown(got));
}

const json& JsonFields::at(const std::string& field) {
  asked_.insert(field);
  const auto it = object_.find(field);
  if (it == object_.end()) fail("{}: {}: is missing", where_, field);
  return *it;
}

std::string JsonFields::text(const std::string& field) {
  const json& value = at(field);
  if (!is_text(value)) refuse(field, kText, value);
  return value.get<std::string>();
}

uint64_t JsonFields::whole(const std::string& field, uint64_t lo, uint64_t hi) {
  const json& value = at(field);
  const bool is_natural = value.is_number_unsigned() || (value.is_number_integer() && value.get<int64_t>() >= 0);
  if (!is_natural || value.get<uint64_t>() < lo || value.get<uint64_t>() > hi)
    refuse(field, fmt::format("a whole number from {} to {}", lo, hi), value);
  return value.get<uint64_t>();
}

double JsonFields::number(const std::string& field) {
  const json& value = at(field);
  if (!value.is_number() || !std::isfinite(value.get<double>()) || value.get<double>() < 0)
    refuse(field, "a number from 0", value);
  return value.get<double>();
}

uint64_t JsonFields::hash(const std::string& field) {
  const json& value = at(field);
  if (!is_hash(value)) refuse(field, kHash, value);
  return to_hash(value);
}

bool JsonFields::flag(const std::string& field) {
  const json& value = at(field);
  if (!value.is_boolean()) refuse(field, "true or false", value);
  return value.get<bool>();
}

const json& JsonFields::array(const std::string& field) {
  const json& value = at(field);
  if (!value.is_array()) refuse(field, "an array", value);
  return value;
}

std::vector<int32_t> JsonFields::token_ids(const std::string& field) {
  std::vector<int32_t> ids;
  for (const json& value : array(field)) {
    if (!value.is_number_unsigned() || value.get<uint64_t>() > INT32_MAX)
      refuse(member(field, ids.size()), fmt::format("a token id from 0 to {}", INT32_MAX), value);
    ids.push_back(value.get<int32_t>());
  }
  return ids;
}

std::vector<std::string> JsonFields::texts(const std::string& field) {
  std::vector<std::string> texts;
  for (const json& value : array(field)) {
    if (!is_text(value)) refuse(member(field, texts.size()), kText, value);
    texts.push_back(value.get<std::string>());
  }
  return texts;
}

std::vector<uint64_t> JsonFields::hashes(const std::string& field) {
  std::vector<uint64_t> hashes;
  for (const json& value : array(field)) {
    if (!is_hash(value)) refuse(member(field, hashes.size()), kHash, value);
    hashes.push_back(to_hash(value));
  }
  return hashes;
}

JsonFields JsonFields::object(const std::string& field) { return {at(field), where_ + ": " + field}; }

std::vector<JsonFields> JsonFields::objects(const std::string& field) {
  std::vector<JsonFields> objects;
  for (const json& value : array(field)) objects.emplace_back(value, where_ + ": " + member(field, objects.size()));
  return objects;
}

std::vector<std::string> JsonFields::names() const {
  std::vector<std::string> names;
  for (const auto& [name, value] : object_.items()) names.push_back(name);
  return names;
}

void JsonFields::end() const {
  for (const auto& [name, value] : object_.items())
    if (asked_.count(name) == 0) fail("{}: {}: there is no such field", where_, printable(name));
}

}  // namespace llorch
