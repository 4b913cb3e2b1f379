// A value inside of a JSON file that knows where it stands, so that errors name file, field, expected and got.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>

namespace llorch {

// A view: the JSON must outlive it.
class JsonField {
 public:
  // path is how messages name the value: the file, then the fields down to it.
  JsonField(const nlohmann::json& value, std::string path) : value_(&value), path_(std::move(path)) {}

  const nlohmann::json& value() const { return *value_; }
  const std::string& path() const { return path_; }

  // A member of an object. find: nothing if it is absent or null; at: then an Error.
  std::optional<JsonField> find(const char* key) const;
  JsonField at(const char* key) const;

  // Elements of an array.
  size_t size() const;
  JsonField element(size_t index) const;

  const std::string& string() const;
  const std::string& character() const;  // a string of exactly one character
  bool boolean() const;
  int64_t integer(int64_t low, int64_t high) const;

  // The member's value, or what holds where it is absent or null.
  std::string string_or(const char* key, const std::string& otherwise) const;
  bool boolean_or(const char* key, bool otherwise) const;

  [[noreturn]] void wrong(std::string_view expected) const;

 private:
  const nlohmann::json* value_;
  std::string path_;
};

}  // namespace llorch
