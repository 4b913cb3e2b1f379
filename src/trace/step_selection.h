// Which steps of a plan a person asks for.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "backend/backend.h"

namespace llorch {

// Layers first .. last, both included.
struct LayerRange {
  uint32_t first = 0, last = 0;
};

// "2..5" or "3". Throws Error if it is neither, or if it is empty.
LayerRange parse_layers(const std::string& text);

// The steps whose name fits any of the patterns ('*' stands for any text; none or "all": every step) and, where layers
// are given, that belong to one of them. Throws Error naming the pattern that no step fits, or the range if no step is
// left.
StepSet select_steps(const Plan& plan, std::span<const std::string> patterns, const std::optional<LayerRange>& layers);

}  // namespace llorch
