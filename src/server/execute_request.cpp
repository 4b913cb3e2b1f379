// A reader that takes the fields of a JSON object one by one and collects what is wrong with them.
#include "server/execute_request.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <set>
#include <utility>

namespace llorch {
namespace {

using Json = nlohmann::json;

constexpr size_t kMaxPromptChars = 32768;
constexpr uint64_t kMaxTokens = 2048;
constexpr size_t kMaxStops = 4;
constexpr size_t kMaxStopBytes = 100;

// Code points of valid UTF-8: the bytes that continue none.
size_t code_points(const std::string& text) {
  return static_cast<size_t>(
      std::count_if(text.begin(), text.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; }));
}

class FieldReader {
 public:
  explicit FieldReader(const Json& body) : body_(body) {
    if (!body.is_object()) refuse("", "type(object)", "the body must be a JSON object");
  }

  // The member, marked as known; nullptr if absent.
  const Json* find(const std::string& field) {
    known_.insert(field);
    if (!body_.is_object()) return nullptr;
    const auto at = body_.find(field);
    return at == body_.end() ? nullptr : &*at;
  }

  // As find, but its absence is an error.
  const Json* require(const std::string& field) {
    const Json* value = find(field);
    if (value == nullptr && body_.is_object()) refuse(field, "required", fmt::format("{} is required", field));
    return value;
  }

  // A required string; nothing if it is absent or something else.
  std::optional<std::string> text(const std::string& field) {
    const Json* value = require(field);
    if (value == nullptr) return std::nullopt;
    if (value->is_string()) return value->get<std::string>();
    refuse_type(field, "string", *value);
    return std::nullopt;
  }

  // A whole number in lo..=hi.
  uint64_t integer(const std::string& field, const Json* value, uint64_t lo, uint64_t hi, uint64_t otherwise) {
    if (value == nullptr) return otherwise;
    if (!value->is_number_integer()) {
      refuse_type(field, "integer", *value);
      return otherwise;
    }
    const bool negative = !value->is_number_unsigned() && value->get<int64_t>() < 0;
    const uint64_t number = negative ? 0 : value->get<uint64_t>();
    if (!negative && number >= lo && number <= hi) return number;
    refuse(field, fmt::format("range({}..={})", lo, hi), fmt::format("{} must be {} to {}", field, lo, hi), *value);
    return otherwise;
  }

  // A number in 0.0..=hi.
  float number(const std::string& field, double hi, float otherwise) {
    const Json* value = find(field);
    if (value == nullptr) return otherwise;
    if (!value->is_number()) {
      refuse_type(field, "number", *value);
      return otherwise;
    }
    const double number = value->get<double>();
    if (number >= 0 && number <= hi) return static_cast<float>(number);
    refuse(field, fmt::format("range(0.0..={:.1f})", hi), fmt::format("{} must be 0.0 to {:.1f}", field, hi), *value);
    return otherwise;
  }

  bool flag(const std::string& field) {
    const Json* value = find(field);
    if (value == nullptr) return false;
    if (value->is_boolean()) return value->get<bool>();
    refuse_type(field, "boolean", *value);
    return false;
  }

  void refuse(std::string field, std::string constraint, std::string message, std::optional<Json> value = {}) {
    errors_.push_back({std::move(field), std::move(constraint), std::move(message), std::move(value)});
  }

  void refuse_type(const std::string& field, const char* type, const Json& value) {
    const bool harmless = value.is_number() || value.is_boolean() || value.is_null();
    refuse(field, fmt::format("type({})", type), fmt::format("{} must be a JSON {}", field, type),
           harmless ? std::optional<Json>(value) : std::nullopt);
  }

  // Call last: what was never asked for is unknown.
  std::vector<FieldError> errors() {
    if (body_.is_object()) {
      for (const auto& [name, value] : body_.items()) {
        if (known_.count(name) == 0) {
          refuse(name.substr(0, 64), "known_field", "there is no such field");
          if (++unknown_ == kMaxUnknown) break;
        }
      }
    }
    return std::move(errors_);
  }

 private:
  static constexpr int kMaxUnknown = 16;  // names repeated in one answer

  const Json& body_;
  std::set<std::string> known_;
  std::vector<FieldError> errors_;
  int unknown_ = 0;
};

std::string read_job_id(FieldReader& reader) {
  const std::optional<std::string> id = reader.text("job_id");
  if (!id) return {};
  if (id->empty()) reader.refuse("job_id", "non_empty", "job_id must not be empty");
  if (id->size() > kMaxJobIdBytes) {
    reader.refuse("job_id", fmt::format("max_length({})", kMaxJobIdBytes),
                  fmt::format("job_id is {} bytes, {} at most", id->size(), kMaxJobIdBytes));
  }
  return *id;
}

std::string read_prompt(FieldReader& reader) {
  const std::optional<std::string> prompt = reader.text("prompt");
  if (!prompt) return {};
  const size_t chars = code_points(*prompt);
  if (chars < 1 || chars > kMaxPromptChars) {
    reader.refuse("prompt", fmt::format("length(1..={})", kMaxPromptChars),
                  fmt::format("prompt is {} characters, 1 to {} are allowed", chars, kMaxPromptChars));
  }
  return *prompt;
}

std::vector<std::string> read_stop(FieldReader& reader) {
  const Json* value = reader.find("stop");
  if (value == nullptr) return {};
  if (!value->is_array()) {
    reader.refuse_type("stop", "array", *value);
    return {};
  }
  if (value->size() > kMaxStops) {
    reader.refuse("stop", fmt::format("max_count({})", kMaxStops),
                  fmt::format("stop has {} strings, {} at most", value->size(), kMaxStops));
    return {};
  }
  std::vector<std::string> stop;
  for (size_t i = 0; i < value->size(); ++i) {
    const Json& entry = (*value)[i];
    const std::string field = fmt::format("stop[{}]", i);
    if (!entry.is_string()) {
      reader.refuse_type(field, "string", entry);
      continue;
    }
    stop.push_back(entry.get<std::string>());
    const size_t size = stop.back().size();
    if (size == 0) reader.refuse(field, "non_empty", field + " must not be empty");
    if (size > kMaxStopBytes) {
      reader.refuse(field, fmt::format("max_length({})", kMaxStopBytes),
                    fmt::format("{} is {} bytes, {} at most", field, size, kMaxStopBytes));
    }
  }
  return stop;
}

}  // namespace

std::variant<ExecuteRequest, std::vector<FieldError>> read_execute_request(const Json& body) {
  FieldReader reader(body);
  ExecuteRequest out;
  out.job_id = read_job_id(reader);
  out.prompt = read_prompt(reader);
  out.max_tokens = static_cast<uint32_t>(reader.integer("max_tokens", reader.require("max_tokens"), 1, kMaxTokens, 1));
  out.sampling.temperature = reader.number("temperature", 2.0, 1.0f);
  out.sampling.seed = reader.integer("seed", reader.find("seed"), 0, UINT64_MAX, 42);
  out.sampling.top_p = reader.number("top_p", 1.0, 1.0f);
  out.sampling.top_k = static_cast<uint32_t>(reader.integer("top_k", reader.find("top_k"), 0, UINT32_MAX, 0));
  out.sampling.min_p = reader.number("min_p", 1.0, 0.0f);
  out.sampling.repetition_penalty = reader.number("repetition_penalty", 2.0, 1.0f);
  out.stop = read_stop(reader);
  out.ignore_eos = reader.flag("ignore_eos");
  out.record = reader.flag("record");
  std::vector<FieldError> errors = reader.errors();
  if (!errors.empty()) return errors;
  return out;
}

std::variant<std::string, std::vector<FieldError>> read_cancel_request(const Json& body) {
  FieldReader reader(body);
  std::string job_id = read_job_id(reader);
  std::vector<FieldError> errors = reader.errors();
  if (!errors.empty()) return errors;
  return job_id;
}

}  // namespace llorch
