// The form of a bundle: one JSON object, versioned, which strangers may have written.
#pragma once

#include <nlohmann/json.hpp>
#include <string_view>

#include "trace/bundle.h"

namespace llorch {

inline constexpr uint64_t kBundleVersion = 2;  // 1: another hash of logits

nlohmann::ordered_json to_json(const Bundle& bundle);

// Reads it strictly: every field there, of its type and within its range, none that is unknown, counts and digests that
// fit the tokens. `where` begins the messages. Throws Error naming the field, what was expected and what was got.
Bundle parse_bundle(std::string_view text, std::string_view where);

}  // namespace llorch
