// Checked access to JSON values.
#include "text/json_field.h"

#include "base/error.h"
#include "format/printable.h"
#include "text/utf8.h"

namespace llorch {

using nlohmann::json;

std::optional<JsonField> JsonField::find(const char* key) const {
  if (!value_->is_object()) wrong("an object");
  const auto member = value_->find(key);
  if (member == value_->end() || member->is_null()) return std::nullopt;
  return JsonField(*member, path_ + (path_.ends_with(": ") ? "" : ".") + key);
}

JsonField JsonField::at(const char* key) const {
  auto member = find(key);
  if (!member) fail("{}: \"{}\" is missing", path_, key);
  return *std::move(member);
}

size_t JsonField::size() const {
  if (!value_->is_array()) wrong("an array");
  return value_->size();
}

JsonField JsonField::element(size_t index) const {
  if (index >= size()) wrong(fmt::format("an array of more than {} elements", index));
  return JsonField((*value_)[index], fmt::format("{}[{}]", path_, index));
}

const std::string& JsonField::string() const {
  if (!value_->is_string()) wrong("a string");
  return value_->get_ref<const std::string&>();
}

const std::string& JsonField::character() const {
  const std::string& text = string();
  if (text.empty() || utf8_length(text[0]) != text.size()) wrong("a string of one character");
  return text;
}

bool JsonField::boolean() const {
  if (!value_->is_boolean()) wrong("true or false");
  return value_->get<bool>();
}

int64_t JsonField::integer(int64_t low, int64_t high) const {
  const bool fits = value_->is_number_integer() &&
                    (!value_->is_number_unsigned() || value_->get<uint64_t>() <= static_cast<uint64_t>(INT64_MAX));
  if (!fits || value_->get<int64_t>() < low || value_->get<int64_t>() > high)
    wrong(fmt::format("an integer in {}..{}", low, high));
  return value_->get<int64_t>();
}

std::string JsonField::string_or(const char* key, const std::string& otherwise) const {
  const auto member = find(key);
  return member ? member->string() : otherwise;
}

bool JsonField::boolean_or(const char* key, bool otherwise) const {
  const auto member = find(key);
  return member ? member->boolean() : otherwise;
}

void JsonField::wrong(std::string_view expected) const {
  std::string got = value_->type_name();
  if (value_->is_primitive() && !value_->is_null()) got = printable(value_->dump(), 60);
  fail("{}: expected {}, got {}", path_, expected, got);
}

}  // namespace llorch
