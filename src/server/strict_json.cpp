// The checks that nlohmann's parser leaves to its callback.
#include "server/strict_json.h"

#include <set>
#include <string>
#include <vector>

#include "base/error.h"

namespace llorch {

nlohmann::json parse_strict_json(std::string_view text) {
  using Json = nlohmann::json;
  std::vector<std::set<std::string>> keys;  // of the objects around the cursor
  const auto check = [&keys](int depth, Json::parse_event_t event, Json& parsed) {
    switch (event) {
      case Json::parse_event_t::object_start:
        keys.emplace_back();
        [[fallthrough]];
      case Json::parse_event_t::array_start:
        if (depth >= kMaxJsonDepth) fail("the body is nested deeper than {} levels", kMaxJsonDepth);
        break;
      case Json::parse_event_t::key:
        if (!keys.back().insert(parsed.get<std::string>()).second) fail("the body names a field twice");
        break;
      case Json::parse_event_t::object_end:
        keys.pop_back();
        break;
      case Json::parse_event_t::array_end:
      case Json::parse_event_t::value:
        break;
    }
    return true;
  };
  try {
    return Json::parse(text.begin(), text.end(), check);
  } catch (const Json::parse_error& error) {
    fail("the body is not JSON (byte {})", error.byte);
  } catch (const Json::out_of_range&) {
    fail("the body is not JSON: a number is too large");
  }
}

}  // namespace llorch
