// JSON from files that nobody vouches for: bounded in size and depth, no key twice.
#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string_view>

namespace llorch {

inline constexpr size_t kMaxJsonBytes = 100'000'000;
inline constexpr int kMaxJsonDepth = 64;

// Parses UTF-8 JSON. `where` begins the messages ("model/config.json"). Throws Error: syntax (with its place), a key
// that stands twice in one object, deeper than kMaxJsonDepth.
nlohmann::json parse_json(std::string_view text, std::string_view where);

// The same from a file of kMaxJsonBytes at most; Error if it is absent.
nlohmann::json read_json_file(const std::filesystem::path& path);

}  // namespace llorch
