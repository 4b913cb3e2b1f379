// llorch trace and llorch diff as a user calls them: what they print, and exit codes 0, 1 and 2.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "format/safetensors_writer.h"
#include "shell_for_test.h"
#include "trace/trace_file.h"
#include "trace/trace_metadata.h"

namespace llorch {
namespace {

using testing::HasSubstr;
using testing::Not;

constexpr const char* kTiny = LLORCH_SOURCE_DIR "/tests/fixtures/tiny-llama";
constexpr const char* kOutside = LLORCH_SOURCE_DIR "/tests/golden/tiny-llama.outside.safetensors";  // transformers
constexpr const char* kStory = LLORCH_SOURCE_DIR "/models/story-7m";

std::string read_text(const std::string& path) {
  std::ostringstream text;
  text << std::ifstream(path).rdbuf();
  return text.str();
}

class Diff : public ::testing::Test {
 protected:
  Diff() : folder_(testing::TempDir() + "llorch_e2e_diff_" + std::to_string(::getpid())) {
    std::filesystem::create_directories(folder_);
  }
  ~Diff() override { std::filesystem::remove_all(folder_); }

  std::string file(const std::string& name) const { return (folder_ / name).string(); }

  // The path of a trace of the tiny model, 12 tokens of which 3 are decoded.
  std::string trace(const std::string& name, const std::string& flags = "--backend cpu") const {
    const Result result = llorch(fmt::format("trace {} --tokens 5,6,7,8,9,10,11,12,13,14,15,16 --decode 3 {} --out {}",
                                             kTiny, flags, file(name)));
    EXPECT_EQ(result.exit_code, 0) << result.output;
    return file(name);
  }

  // A copy in which one value of a step is changed.
  std::string edited(const std::string& path, const std::string& step, size_t index,
                     const std::function<float(float)>& change) const {
    const std::string copy = file(std::filesystem::path(path).filename().string() + ".edited");
    const TraceFile file(path);
    std::vector<float> values;
    std::vector<Tensor> tensors;
    for (const TracedRows& rows : file.steps()) {
      std::span<const std::byte> bytes = std::as_bytes(rows.values);
      if (rows.step == step) {
        values.assign(rows.values.begin(), rows.values.end());
        values.at(index) = change(values.at(index));
        bytes = std::as_bytes(std::span(values));
      }
      tensors.push_back(
          {rows.step, DType::kF32, {static_cast<int64_t>(rows.positions.size()), int64_t{rows.width}}, bytes});
    }
    write_safetensors(copy, tensors, to_metadata(file.info()));
    return copy;
  }

  std::filesystem::path folder_;
};

TEST_F(Diff, BothBackendsMakeEqualTraces) {
  const std::string cpu = trace("cpu"), reference = trace("reference", "--backend reference");
  const Result files = llorch("diff " + cpu + " " + reference);
  EXPECT_EQ(files.exit_code, 0) << files.output;
  EXPECT_THAT(files.output, HasSubstr("llorch_e2e"));
  EXPECT_THAT(files.output, HasSubstr("12 tokens: 9 prefilled, 3 decoded, f16 KV"));
  EXPECT_THAT(files.output, HasSubstr("layers.1.ffn_out"));
  EXPECT_THAT(files.output, HasSubstr("argmax 4/4"));
  EXPECT_THAT(files.output, HasSubstr("all 22 steps are equal, bit for bit\n"));
}

TEST_F(Diff, ABackendRunsWhatTheTraceRan) {
  const std::string path = trace("f32", "--backend cpu --kv-dtype f32 --steps 'layers.*.attn,logits'");
  const Result result = llorch(fmt::format("diff {} reference --model {}", path, kTiny));
  EXPECT_EQ(result.exit_code, 0) << result.output;
  EXPECT_THAT(result.output, HasSubstr("f32 KV"));
  EXPECT_THAT(result.output, HasSubstr("all 3 steps are equal"));
}

// The embedded model, without files: all of it, then each step by itself.
TEST_F(Diff, TheStoryModelIsTheSameOnTheCpuAndTheReference) {
  if (!std::filesystem::exists(kStory)) GTEST_SKIP() << "models/story-7m is absent";
  const std::string sides = "diff cpu reference --prompt 'Once upon a time there was a fox' --decode 3 --model ";
  for (const char* local : {"", " --local"}) {
    const Result result = llorch(sides + kStory + local);
    EXPECT_EQ(result.exit_code, 0) << result.output;
    EXPECT_THAT(result.output, HasSubstr("all 76 steps are equal, bit for bit\n"));
  }
}

TEST_F(Diff, AChangedBitIsNamed) {
  const std::string path = trace("whole");
  const std::string changed = edited(path, "layers.1.attn", 2 * 64 + 7, [](float x) { return std::nextafter(x, 9.f); });
  const Result result = llorch("diff " + changed + " " + path);
  EXPECT_EQ(result.exit_code, 1) << result.output;
  EXPECT_THAT(result.output, HasSubstr("\n> layers.1.attn "));
  EXPECT_THAT(result.output,
              HasSubstr("1 of 22 steps differ; the first: layers.1.attn (layer 1, attention, f32 [12, 64]): position "
                        "2, element 7: a "));
  EXPECT_THAT(result.output, HasSubstr("1 of 768 elements differ\n"));
  const std::string nan = edited(path, "logits", 0, [](float) { return std::nanf(""); });
  EXPECT_THAT(llorch("diff " + nan + " " + path).output, HasSubstr("NaN at 8:0"));
}

TEST_F(Diff, JsonSaysTheSameForPrograms) {
  const std::string path = trace("whole");
  const std::string changed = edited(path, "layers.0.qkv", 5, [](float x) { return -x; });
  const Result result = llorch("diff --json " + changed + " " + path);
  EXPECT_EQ(result.exit_code, 1);
  const auto json = nlohmann::json::parse(result.output);
  EXPECT_EQ(json["comparable"], true);
  EXPECT_EQ(json["equal"], false);
  EXPECT_EQ(json["first"], "layers.0.qkv");
  EXPECT_EQ(json["b"]["name"], path);
  EXPECT_EQ(json["n_prompt"], 9);
  ASSERT_EQ(json["steps"].size(), 22u);
  EXPECT_EQ(json["steps"][2]["dtype"], "bf16");
  EXPECT_EQ(json["steps"][2]["first_difference"]["element"], 5);
  EXPECT_EQ(json["steps"][2]["nmse_by_row"].size(), 12u);
  const Result refused = llorch("diff --json " + path + " cpu --tokens 5,6 --model " + kTiny + " 2>/dev/null");
  EXPECT_EQ(refused.exit_code, 2);
  EXPECT_EQ(nlohmann::json::parse(refused.output)["mismatches"][0]["field"], "tokens");
}

TEST_F(Diff, HtmlIsOneFileThatLoadsNothing) {
  const std::string path = trace("whole");
  const std::string changed = edited(path, "layers.0.act", 3, [](float x) { return x + 1; });
  EXPECT_EQ(llorch("diff " + changed + " " + path + " --html " + file("page.html")).exit_code, 1);
  const std::string html = read_text(file("page.html"));
  EXPECT_THAT(html, testing::StartsWith("<!doctype html>"));
  EXPECT_THAT(html, testing::EndsWith("</html>\n"));
  EXPECT_THAT(html, HasSubstr("<strong>layers.0.act</strong>"));
  EXPECT_THAT(html, HasSubstr("<svg class=\"map\""));
  for (const char* outside : {"http:", "https:", "<script", "<link", "<img", "url("})
    EXPECT_THAT(html, Not(HasSubstr(outside)));
  const Result unwritable = llorch("diff " + path + " " + path + " --html /nowhere/page.html");
  EXPECT_EQ(unwritable.exit_code, 2);
  EXPECT_THAT(unwritable.output, HasSubstr("--html /nowhere/page.html: cannot be written"));
}

TEST_F(Diff, AnOutsideTraceIsHeldAgainstABackendWithinBounds) {
  const std::string sides = fmt::format("diff cpu {} --model {} --html {}", kOutside, kTiny, file("page.html"));
  const Result result = llorch(sides);
  EXPECT_EQ(result.exit_code, 0) << result.output;
  EXPECT_THAT(result.output, HasSubstr("transformers, float32, outside\n"));
  EXPECT_THAT(result.output, HasSubstr("f32 KV")) << "as the outside program says";
  EXPECT_THAT(result.output, HasSubstr("      bound\n"));
  EXPECT_THAT(result.output, HasSubstr("all 22 steps are within their bounds; the closest is layers."));
  EXPECT_THAT(result.output, HasSubstr("; the largest logit is the same one in 4 of 4 rows\n"));
  EXPECT_THAT(read_text(file("page.html")), HasSubstr("<strong>Within bounds</strong>"));
  const auto json = nlohmann::json::parse(llorch(sides + " --json --kv-dtype f16").output);
  EXPECT_EQ(json["equal"], true);
  EXPECT_EQ(json["exact"], false);
  EXPECT_GT(json["closest_to_bound"]["share"], 0.01);
  EXPECT_EQ(json["closest_to_bound"]["step"], "layers.0.attn") << "where keys and values are first rounded";
  EXPECT_EQ(json["steps"][21]["argmax_agree"], 4);
}

TEST_F(Diff, AStepThatIsNotWithinItsBoundIsNamed) {
  const std::string changed = edited(kOutside, "layers.1.attn", 2 * 64 + 7, [](float x) { return x + 0.01f; });
  const Result result = llorch(fmt::format("diff {} cpu --model {} --html {}", changed, kTiny, file("page.html")));
  EXPECT_EQ(result.exit_code, 1) << result.output;
  EXPECT_THAT(result.output, HasSubstr("\n> layers.1.attn "));
  EXPECT_THAT(result.output, HasSubstr("1 of 22 steps are not within their bounds; the first: layers.1.attn (layer 1, "
                                       "attention, f32 [12, 64]): NMSE "));
  EXPECT_THAT(result.output, HasSubstr("; the largest difference is at position 2, element 7: a "));
  EXPECT_THAT(read_text(file("page.html")), HasSubstr("is the first step outside its bound"));
  const auto json = nlohmann::json::parse(llorch("diff --json " + changed + " cpu --model " + kTiny).output);
  EXPECT_EQ(json["equal"], false);
  EXPECT_EQ(json["first"], "layers.1.attn");
  EXPECT_GT(json["closest_to_bound"]["share"], 1);
  const Result both = llorch(fmt::format("diff {} {}", changed, kOutside));
  EXPECT_EQ(both.exit_code, 2);
  EXPECT_THAT(both.output, HasSubstr("numerics, of which one must be exact: a has outside, b has outside"));
}

TEST_F(Diff, WhatCannotBeComparedExitsWithTwoAndBothValues) {
  const std::string path = trace("whole");
  const std::string tiny = std::string(" --model ") + kTiny;
  const auto refusal = [](const std::string& arguments) {
    const Result result = llorch(arguments);
    EXPECT_EQ(result.exit_code, 2) << result.output;
    EXPECT_EQ(std::count(result.output.begin(), result.output.end(), '\n'), 1) << result.output;
    return result.output;
  };
  EXPECT_THAT(refusal("diff " + path + " cpu --tokens 5,6,7,9,9,10,11,12,13,14,15,16 --decode 3" + tiny),
              HasSubstr("llorch: not comparable: tokens: a has 8 at position 3 of 12, b has 9 at position 3 of 12"));
  EXPECT_THAT(refusal("diff cpu " + path + " --tokens 5,6,7,8,9,10,11,12,13,14,15,16 --decode 4" + tiny),
              HasSubstr("n_prompt: a has 8, b has 9"));
  EXPECT_THAT(refusal("diff " + path + " cpu --kv-dtype f32" + tiny), HasSubstr("kv_dtype: a has f16, b has f32"));
  EXPECT_THAT(refusal("diff " + path + " cpu --model " + LLORCH_SOURCE_DIR + "/tests/golden/llama3-rope-f16"),
              HasSubstr("not comparable: model_hash: a has "));
  EXPECT_THAT(refusal("diff " + trace("one", "--layers 0") + " " + trace("two", "--layers 1")),
              HasSubstr("steps: a has 9 from layers.0.attn_norm, b has 9 from layers.1.attn_norm, none of them"));
}

TEST_F(Diff, MistakesExitWithTwoAndOneLine) {
  const std::string path = trace("whole");
  std::ofstream(file("garbage")) << "this is no trace, and long enough to be looked at";
  std::filesystem::copy_file(path, file("cut"));
  std::filesystem::resize_file(file("cut"), 5000);
  const std::string weights = std::string(kTiny) + "/model.safetensors";
  const std::vector<std::pair<std::string, std::string>> mistakes = {
      {"diff " + path, "B is required"},
      {"diff " + path + " " + file("nothing"), "nothing: no such trace file, and no backend"},
      {"diff " + path + " tpu", "tpu: no such trace file, and no backend"},
      {"diff " + path + " metal --model " + kTiny, "does not exist yet"},
      {"diff " + path + " " + file("garbage"), "garbage: expected a SafeTensors header"},
      {"diff " + path + " " + file("cut"), "cut: "},
      {"diff " + path + " " + weights, "field \"llorch_trace\" is missing: this is no trace"},
      {"diff " + path + " cpu --model /nowhere", "/nowhere"},
      {"diff " + path + " cpu --local --model " + kTiny, "--local: expected two backends, got the file"},
      {std::string("diff cpu reference --model ") + kTiny, "expected the tokens of a run: --tokens or --prompt"},
      {std::string("diff cpu reference --tokens 5 --steps nothing --model ") + kTiny, "no step of the plan fits"},
      {std::string("trace --tokens 5,9999 --out x ") + kTiny, "token 9999 at position 1"},
      {std::string("trace --tokens 5 ") + kTiny, "--out is required"}};
  for (const auto& [arguments, message] : mistakes) {
    const Result result = llorch(arguments);
    EXPECT_EQ(result.exit_code, 2) << arguments;
    EXPECT_EQ(result.output.rfind("llorch: ", 0), 0u) << result.output;
    EXPECT_THAT(result.output, HasSubstr(message));
    EXPECT_EQ(std::count(result.output.begin(), result.output.end(), '\n'), 1) << result.output;
  }
}

}  // namespace
}  // namespace llorch
