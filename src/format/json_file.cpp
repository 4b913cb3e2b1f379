#include "format/json_file.h"

#include <set>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/mapped_file.h"
#include "format/printable.h"

namespace llorch {

using nlohmann::json;

json parse_json(std::string_view text, std::string_view where) {
  std::vector<std::set<std::string>> open;  // keys of each open object; empty for arrays
  const auto watch = [&](int, json::parse_event_t event, json& parsed) {
    switch (event) {
      case json::parse_event_t::object_start:
      case json::parse_event_t::array_start:
        if (open.size() >= kMaxJsonDepth) fail("{}: JSON nested deeper than {}", where, kMaxJsonDepth);
        open.emplace_back();
        break;
      case json::parse_event_t::object_end:
      case json::parse_event_t::array_end:
        open.pop_back();
        break;
      case json::parse_event_t::key: {
        const auto& key = parsed.get_ref<const std::string&>();
        if (!open.back().insert(key).second) fail("{}: key \"{}\" stands twice in one object", where, printable(key));
        break;
      }
      case json::parse_event_t::value:
        break;
    }
    return true;
  };
  try {
    return json::parse(text, watch);
  } catch (const json::exception& error) {
    fail("{}: not valid JSON: {}", where, printable(error.what(), 300));
  }
}

json read_json_file(const std::filesystem::path& path) {
  const MappedFile file(path);
  const auto bytes = file.bytes();
  if (bytes.size() > kMaxJsonBytes) {
    fail("{}: expected at most {} bytes of JSON, got {}", path.string(), kMaxJsonBytes, bytes.size());
  }
  return parse_json({reinterpret_cast<const char*>(bytes.data()), bytes.size()}, path.string());
}

}  // namespace llorch
