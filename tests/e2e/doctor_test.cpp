// llorch doctor as a user calls it: healthy and broken models, what it prints, how it ends.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "shell_for_test.h"
#include "worker_for_test.h"

namespace llorch {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;
using testing::Not;

const std::string kStory = LLORCH_SOURCE_DIR "/models/story-7m";

// A copy of the tiny model in which one element of a bf16 tensor is NaN.
fs::path model_with_nan(const std::string& tensor, int row, int column) {
  const fs::path folder = fs::path(testing::TempDir()) / "llorch_e2e_nan";
  fs::remove_all(folder);
  fs::copy(kTinyModel, folder);
  std::fstream file(folder / "model.safetensors", std::ios::in | std::ios::out | std::ios::binary);
  uint64_t header_bytes = 0;
  file.read(reinterpret_cast<char*>(&header_bytes), sizeof header_bytes);
  std::string header(header_bytes, '\0');
  file.read(header.data(), static_cast<std::streamsize>(header_bytes));
  const nlohmann::json entry = nlohmann::json::parse(header).at(tensor);
  EXPECT_EQ(entry["dtype"], "BF16");
  const uint64_t at = entry["data_offsets"][0].get<uint64_t>() + 2 * (row * entry["shape"][1].get<uint64_t>() + column);
  file.seekp(static_cast<std::streamoff>(sizeof header_bytes + header_bytes + at));
  file.write("\xc0\x7f", 2);
  return folder;
}

std::vector<std::string> names_of(const nlohmann::json& checks, bool passed) {
  std::vector<std::string> names;
  for (const nlohmann::json& check : checks)
    if (check["passed"] == passed) names.push_back(check["name"]);
  return names;
}

TEST(DoctorCommand, AHealthyModelPassesAllChecks) {
  const std::pair<const char*, std::string> patients[] = {{"cpu", kStory + " --threads 2"}, {"reference", kTinyModel}};
  for (const auto& [backend, model] : patients) {
    const Result result = llorch("doctor " + model + " --backend " + backend);
    EXPECT_EQ(result.exit_code, 0) << result.output;
    EXPECT_THAT(result.output, HasSubstr(std::string("backend    ") + backend + ": "));
    EXPECT_THAT(result.output, HasSubstr("against    reference: "));
    EXPECT_THAT(result.output,
                HasSubstr(model == kTinyModel ? "model      tiny-llama, hash " : "model      story-7m, hash "));
    EXPECT_THAT(result.output, HasSubstr("weights    bf16 "));
    EXPECT_THAT(result.output, HasSubstr("KV         f16\n"));
    EXPECT_THAT(result.output, HasSubstr(" layers at 131 positions\n"));
    EXPECT_THAT(result.output, HasSubstr("ok    131 tokens "));
    EXPECT_THAT(result.output, Not(HasSubstr("FAIL")));
    EXPECT_THAT(result.output,
                HasSubstr(std::string("\n\n") + backend + " gives the reference's bits in all 20 checks\n"));
  }
}

TEST(DoctorCommand, JsonSaysTheSame) {
  const Result result = llorch(std::string("doctor --json ") + kTinyModel + " --tokens 1,5,7,9,11,2,3,4,6");
  EXPECT_EQ(result.exit_code, 0) << result.output;
  const nlohmann::json report = nlohmann::json::parse(result.output);
  EXPECT_EQ(report["healthy"], true);
  EXPECT_EQ(report["backend"]["name"], "cpu");
  EXPECT_EQ(report["reference"]["name"], "reference");
  EXPECT_EQ(report["model"]["name"], "tiny-llama");
  EXPECT_EQ(report["model"]["hash"].get<std::string>().size(), 16u);
  EXPECT_EQ(report["weight_bytes"].size(), 1u);
  EXPECT_EQ(report["kv_dtype"], "f16");
  EXPECT_EQ(report["cut"]["positions"], 9);
  EXPECT_EQ(report["cut"]["layers"], report["cut"]["of_layers"]);
  EXPECT_FALSE(report.contains("step"));
  EXPECT_THAT(names_of(report["checks"], true),
              testing::ElementsAre("device", "model", "weights", "steps", "1 token", "2 tokens", "5 tokens", "9 tokens",
                                   "fused", "decode", "chunks", "two sequences", "sampling", "engine", "history",
                                   "engine, two at once"));
}

TEST(DoctorCommand, AWeightThatIsNanIsNamed) {
  const std::string model = model_with_nan("model.layers.1.mlp.up_proj.weight", 3, 5).string();
  const Result result = llorch("doctor " + model);
  EXPECT_EQ(result.exit_code, 1) << result.output;
  EXPECT_THAT(result.output, HasSubstr("FAIL  model "));
  EXPECT_THAT(result.output, HasSubstr("\n\nno backend can be right at layers.1.gate_up: layers.1.ffn_up.weight (bf16) "
                                       "is NaN at row 3, column 5 in the file; there the reference gives NaN"));
  const Result json = llorch("doctor --json " + model);
  EXPECT_EQ(json.exit_code, 1);
  const nlohmann::json report = nlohmann::json::parse(json.output);
  EXPECT_EQ(report["healthy"], false);
  EXPECT_EQ(report["step"], "layers.1.gate_up");
  EXPECT_THAT(names_of(report["checks"], false), testing::ElementsAre("model"));
}

TEST(DoctorCommand, APromptIsRun) {
  const Result result = llorch(std::string("doctor ") + kTinyModel + " --prompt 'the owl said' --kv-dtype f32");
  EXPECT_EQ(result.exit_code, 0) << result.output;
  EXPECT_THAT(result.output, HasSubstr("KV         f32\n"));
  EXPECT_THAT(result.output, HasSubstr("gives the reference's bits"));
}

TEST(DoctorCommand, MistakesOfTheCallerExitWithTwo) {
  const std::string garbage = testing::TempDir() + "/llorch_e2e_garbage.gguf";
  std::ofstream(garbage) << "this is no model";
  const std::string empty = testing::TempDir() + "/llorch_e2e_no_model";
  fs::create_directories(empty);
  const std::string tiny = kTinyModel;
  const std::pair<std::string, const char*> mistakes[] = {
      {"/nowhere", "/nowhere"},
      {garbage, "llorch_e2e_garbage.gguf"},
      {empty, "llorch_e2e_no_model"},
      {tiny + " --backend tpu", "--backend"},
      {tiny + " --backend metal", "does not exist yet"},
      {tiny + " --device 3", "--device 3"},
      {tiny + " --tokens 1,99999", "token 99999 at position 1 is not in the vocabulary"},
      {tiny + " --tokens 1,x", "--tokens"},
      {tiny + " --tokens 1 --prompt x", "--prompt"},
      {tiny + " --kv-dtype q4_0", "--kv-dtype"},
      {tiny + " --nothing", "--nothing"}};
  for (const auto& [arguments, message] : mistakes) {
    const Result result = llorch("doctor " + arguments);
    EXPECT_EQ(result.exit_code, 2) << arguments << ": " << result.output;
    EXPECT_EQ(result.output.rfind("llorch: ", 0), 0u) << result.output;
    EXPECT_THAT(result.output, HasSubstr(message));
    EXPECT_EQ(std::count(result.output.begin(), result.output.end(), '\n'), 1) << result.output;
  }
}

TEST(DoctorCommand, ARealModelIsCutAndHealthy) {
  const std::string model = LLORCH_SOURCE_DIR "/../shared/models/SmolLM2-135M-Instruct.Q4_1.gguf";
  if (!fs::exists(model)) GTEST_SKIP() << "real weights are not in ../shared/models";
  const Result result = llorch("doctor --json " + model);
  EXPECT_EQ(result.exit_code, 0) << result.output;
  const nlohmann::json report = nlohmann::json::parse(result.output);
  EXPECT_EQ(report["healthy"], true) << report["verdict"];
  EXPECT_EQ(report["cut"]["of_layers"], 30);
  EXPECT_LT(report["cut"]["layers"], 30);
  EXPECT_EQ(report["cut"]["whole_positions"], 5);
  EXPECT_EQ(report["weight_bytes"].size(), 3u);
}

}  // namespace
}  // namespace llorch
