// A comparison of two traces as JSON, for programs. The schema is in docs/debugging.md.
#pragma once

#include <nlohmann/json.hpp>
#include <vector>

#include "trace/diff_traces.h"

namespace llorch {

nlohmann::ordered_json to_json(const DiffReport& report);
nlohmann::ordered_json to_json(const StepDiff& step);
nlohmann::ordered_json to_json(const std::vector<Mismatch>& mismatches);

}  // namespace llorch
