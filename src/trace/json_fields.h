// The fields of a JSON object from strangers, read one by one: a field that is absent, of another type, out of range or
// unknown is named, with what was expected and what was got.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <vector>

namespace llorch {

class JsonFields {
 public:
  // where: of the object, as "file.json: model". The value must outlive this. Throws Error if it is no object.
  JsonFields(const nlohmann::json& value, std::string where);

  // All throw Error that names the field.
  const nlohmann::json& at(const std::string& field);
  bool has(const std::string& field) const { return object_.contains(field); }
  bool is_null(const std::string& field) { return at(field).is_null(); }
  std::string text(const std::string& field);  // without control characters
  uint64_t whole(const std::string& field, uint64_t lo, uint64_t hi);
  double number(const std::string& field);  // finite, from 0
  uint64_t hash(const std::string& field);  // 16 hex digits
  bool flag(const std::string& field);
  std::vector<int32_t> token_ids(const std::string& field);
  std::vector<std::string> texts(const std::string& field);
  std::vector<uint64_t> hashes(const std::string& field);
  JsonFields object(const std::string& field);
  std::vector<JsonFields> objects(const std::string& field);
  std::vector<std::string> names() const;  // of all fields

  // Refuses what was never asked for.
  void end() const;

  [[noreturn]] void refuse(const std::string& field, const std::string& expected, const std::string& got) const;

 private:
  [[noreturn]] void refuse(const std::string& field, const std::string& expected, const nlohmann::json& got) const;
  const nlohmann::json& array(const std::string& field);

  const nlohmann::json& object_;
  std::string where_;
  std::set<std::string> asked_;
};

}  // namespace llorch
