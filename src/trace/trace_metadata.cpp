#include "trace/trace_metadata.h"

#include <fmt/format.h>

#include <charconv>
#include <cmath>
#include <nlohmann/json.hpp>
#include <string_view>

#include "base/error.h"
#include "format/json_file.h"
#include "format/printable.h"

namespace llorch {
namespace {

constexpr const char* kVersionKey = "llorch_trace";
constexpr const char* kVersion = "1";

// Reads fields; messages begin with file and field.
class Metadata {
 public:
  Metadata(const std::map<std::string, std::string>& texts, const std::filesystem::path& file)
      : texts_(texts), file_(file.string()) {}

  const std::string* find(const char* key) const {
    const auto it = texts_.find(key);
    return it == texts_.end() ? nullptr : &it->second;
  }
  const std::string& at(const char* key) const {
    if (const std::string* text = find(key)) return *text;
    fail("{}: field \"{}\" is missing{}", where(), key, key == kVersionKey ? ": this is no trace" : "");
  }
  std::string where() const { return file_ + ": __metadata__"; }
  std::string where(const char* key) const { return fmt::format("{}: {}", where(), key); }

  int32_t number(const char* key, std::string_view text) const {
    int32_t value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc() || end != text.data() + text.size() || value < 0)
      fail("{}: expected an integer from 0 to {}, got \"{}\"", where(key), INT32_MAX, printable(text, 40));
    return value;
  }
  std::vector<int32_t> numbers(const char* key) const {
    std::vector<int32_t> values;
    std::string_view left = at(key);
    while (true) {
      const size_t comma = left.find(',');
      values.push_back(number(key, left.substr(0, comma)));
      if (comma == std::string_view::npos) return values;
      left.remove_prefix(comma + 1);
    }
  }

 private:
  const std::map<std::string, std::string>& texts_;
  std::string file_;
};

std::vector<TracedStep> read_steps(const std::string& text, const std::string& where) {
  const nlohmann::json all = parse_json(text, where);
  if (!all.is_array()) fail("{}: expected an array, got {}", where, all.type_name());
  std::vector<TracedStep> steps;
  for (const nlohmann::json& one : all) {
    const auto string = [&](const char* key) {
      const auto it = one.is_object() ? one.find(key) : one.end();
      if (it == one.end() || !it->is_string()) fail("{}: step {}: expected a string \"{}\"", where, steps.size(), key);
      return it->get<std::string>();
    };
    steps.push_back({string("name"), string("verb"), string("dtype"), string("text")});
  }
  return steps;
}

}  // namespace

std::map<std::string, std::string> to_metadata(const TraceInfo& info) {
  nlohmann::ordered_json steps = nlohmann::ordered_json::array();
  for (const TracedStep& step : info.steps)
    steps.push_back({{"name", step.name}, {"verb", step.verb}, {"dtype", step.dtype}, {"text", step.text}});
  return {{kVersionKey, kVersion},
          {"model", info.model},
          {"model_hash", info.model_hash},
          {"plan_hash", info.plan_hash},
          {"backend", info.backend},
          {"device", info.device},
          {"numerics", info.numerics},
          {"kv_dtype", info.kv_dtype},
          {"build", info.build},
          {"tokens", fmt::format("{}", fmt::join(info.tokens, ","))},
          {"n_prompt", std::to_string(info.n_prompt)},
          {"steps", steps.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace)}};
}

TraceInfo trace_info(const std::map<std::string, std::string>& metadata, const std::filesystem::path& file) {
  const Metadata m(metadata, file);
  if (m.at(kVersionKey) != kVersion)
    fail("{}: expected \"{}\", got \"{}\"", m.where(kVersionKey), kVersion, printable(m.at(kVersionKey), 40));
  TraceInfo info;
  info.backend = m.at("backend");
  info.numerics = m.at("numerics");
  const bool is_outside = info.numerics == "outside";
  if (!is_outside && info.numerics != "exact" && info.numerics != "fast")
    fail("{}: expected \"exact\", \"fast\" or \"outside\", got \"{}\"", m.where("numerics"),
         printable(info.numerics, 40));
  const auto text = [&](const char* key) { return is_outside && m.find(key) == nullptr ? std::string() : m.at(key); };
  info.model = text("model");
  info.model_hash = text("model_hash");
  info.plan_hash = text("plan_hash");
  info.device = text("device");
  info.kv_dtype = text("kv_dtype");
  info.build = text("build");
  info.tokens = m.numbers("tokens");
  info.n_prompt = static_cast<uint32_t>(m.number("n_prompt", m.at("n_prompt")));
  if (info.n_prompt == 0 || info.n_prompt > info.tokens.size())
    fail("{}: expected 1 to {}, the number of tokens, got {}", m.where("n_prompt"), info.tokens.size(), info.n_prompt);
  if (const std::string steps = text("steps"); !steps.empty()) info.steps = read_steps(steps, m.where("steps"));
  return info;
}

}  // namespace llorch
