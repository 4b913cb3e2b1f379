// Nothing can be injected into what is released.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/fault.h"

namespace llorch {
namespace {

using nlohmann::json;

static_assert(!fault("launch", "layers.0.attn_out"), "compiled to nothing without LLORCH_FAULTS");

TEST(NoFaults, OnlyPresetsThatTestHaveThem) {
  const json presets = json::parse(std::ifstream(LLORCH_SOURCE_DIR "/CMakePresets.json"))["configurePresets"];
  std::vector<std::string> with_faults;
  for (const json& preset : presets)
    if (preset.contains("cacheVariables") && preset["cacheVariables"].value("LLORCH_FAULTS", "OFF") != "OFF")
      with_faults.push_back(preset["name"]);
  EXPECT_THAT(with_faults, testing::UnorderedElementsAre("ci", "asan", "tsan"));
  for (const json& preset : presets)
    EXPECT_THAT(with_faults, testing::Not(testing::Contains(preset.value("inherits", ""))))
        << preset["name"] << " inherits from a preset that tests";
}

}  // namespace
}  // namespace llorch
