#include "trace/trace_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstring>
#include <fstream>
#include <sstream>

#include "backend/cpu/cpu_backend.h"
#include "backend/reference/reference_backend.h"
#include "format/files_for_test.h"
#include "format/safetensors_writer.h"
#include "trace/tiny_model_for_test.h"
#include "trace/trace_metadata.h"

namespace llorch {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::filesystem::path file_named(const std::string& name) {
  return testing::TempDir() + "llorch_trace_" + std::to_string(::getpid()) + "_" + name;
}

TraceInfo some_info() {
  TraceInfo info;
  info.model = "tiny";
  info.model_hash = "0123456789abcdef";
  info.plan_hash = "fedcba9876543210";
  info.backend = "cpu";
  info.device = "a device";
  info.numerics = "exact";
  info.build = "llorch test";
  return info;
}

std::string error_of_opening(const std::filesystem::path& path) {
  return error_of([&] { const TraceFile file(path); });
}

TEST(TraceFile, HoldsWhatTheProgramShowedAndWhereItCameFrom) {
  const test::TinyModel model;
  const auto program = model.compile(*make_cpu_backend({2, {}}));
  SequenceRun run = test::tiny_run(40, 2);  // two batches of prefill
  const auto path = file_named("whole");
  write_trace(path, *program, run, model.all_steps(), some_info());
  const TraceFile file(path);
  EXPECT_EQ(file.info().model_hash, "0123456789abcdef");
  EXPECT_EQ(file.info().backend, "cpu");
  EXPECT_EQ(file.info().kv_dtype, "f16");
  EXPECT_EQ(file.info().tokens, run.tokens);
  EXPECT_EQ(file.info().n_prompt, 38u);
  ASSERT_EQ(file.info().steps.size(), model.plan.steps.size());
  EXPECT_EQ(file.info().steps[1].verb, "rms_norm");
  EXPECT_THAT(file.info().steps[1].text, HasSubstr("layers.0.attn_norm.weight"));

  const Recording want = record_sequence(*program, run, model.all_steps());
  ASSERT_EQ(file.steps().size(), want.steps.size());
  for (size_t i = 0; i < want.steps.size(); ++i) {
    const TracedRows& rows = file.steps()[i];
    EXPECT_EQ(rows.step, model.plan.steps[i].name);
    EXPECT_EQ(rows.positions, want.steps[i].positions);
    ASSERT_EQ(rows.values.size(), want.steps[i].values.size());
    EXPECT_EQ(std::memcmp(rows.values.data(), want.steps[i].values.data(), rows.values.size_bytes()), 0) << rows.step;
    file.release(rows);
  }
  EXPECT_EQ(file.find("logits"), &file.steps().back());
  EXPECT_EQ(file.find("nothing"), nullptr);
  std::filesystem::remove(path);
}

TEST(TraceFile, ATraceThatBrokeOffIsNoTrace) {
  const test::TinyModel model;
  const auto program = model.compile(*make_reference_backend());
  const auto path = file_named("broken");
  const std::vector<Tensor> tensors = {{"embed", DType::kF32, {1, 4}, {}}};
  TraceInfo info = some_info();
  info.tokens = {1};
  info.n_prompt = 1;
  SafetensorsWriter(path, tensors, to_metadata(info));  // never finished
  EXPECT_THAT(error_of_opening(path), HasSubstr("header"));
  std::filesystem::remove(path);
}

// Writes a file of one tensor and gives the error of reading it as a trace.
class BadTraceFile : public ::testing::Test {
 protected:
  BadTraceFile() {
    info_ = some_info();
    info_.tokens = {1, 2, 3};
    info_.n_prompt = 2;
  }
  ~BadTraceFile() override { std::filesystem::remove(path_); }

  std::string error(const Tensor& tensor) {
    std::map<std::string, std::string> metadata = to_metadata(info_);
    for (const auto& [key, text] : changed_) metadata[key] = text;
    for (const std::string& key : removed_) metadata.erase(key);
    write_safetensors(path_, {&tensor, 1}, metadata);
    return error_of_opening(path_);
  }
  std::string error() { return error({"embed", DType::kF32, {3, 2}, std::as_bytes(std::span(values_)).first(24)}); }
  std::string error_with(const std::string& key, const std::string& text) {
    changed_ = {{key, text}};
    return error();
  }

  std::filesystem::path path_ = file_named("bad");
  TraceInfo info_;
  std::map<std::string, std::string> changed_;
  std::vector<std::string> removed_;
  float values_[12] = {};
};

TEST_F(BadTraceFile, NamesFileAndField) {
  EXPECT_EQ(error(), "(no error)");
  EXPECT_THAT(error_with("tokens", "1,x"), HasSubstr("bad: __metadata__: tokens: expected an integer"));
  EXPECT_THAT(error_with("tokens", ""), HasSubstr("tokens: expected an integer"));
  EXPECT_THAT(error_with("tokens", "1,-2"), HasSubstr("got \"-2\""));
  EXPECT_THAT(error_with("tokens", "1,9999999999"), HasSubstr("got \"9999999999\""));
  EXPECT_THAT(error_with("n_prompt", "0"), HasSubstr("n_prompt: expected 1 to 3, the number of tokens, got 0"));
  EXPECT_THAT(error_with("n_prompt", "4"), HasSubstr("got 4"));
  EXPECT_THAT(error_with("numerics", "magic"), HasSubstr("numerics: expected \"exact\", \"fast\" or \"outside\""));
  EXPECT_THAT(error_with("llorch_trace", "2"), HasSubstr("llorch_trace: expected \"1\", got \"2\""));
  EXPECT_THAT(error_with("steps", "{"), HasSubstr("__metadata__: steps"));
  EXPECT_THAT(error_with("steps", "{}"), HasSubstr("steps: expected an array"));
  EXPECT_THAT(error_with("steps", "[1]"), HasSubstr("steps: step 0: expected a string \"name\""));
  EXPECT_EQ(error_with("steps", R"([{"name":"embed","verb":"embed","dtype":"f32","text":"t"}])"), "(no error)");
  EXPECT_THAT(error_with("steps", R"([{"name":"embed","verb":"embed","text":"t"}])"),
              HasSubstr("step 0: expected a string \"dtype\""));
  EXPECT_THAT(error_with("steps", R"([{"name":"x","verb":"embed","dtype":"f32","text":"t"}])"),
              HasSubstr("step 0 is x, but the tensor at its place is embed"));
}

TEST_F(BadTraceFile, FieldsOfOursMustBeThere) {
  for (const char* key :
       {"model_hash", "plan_hash", "device", "kv_dtype", "tokens", "n_prompt", "backend", "numerics"}) {
    removed_ = {key};
    EXPECT_THAT(error(), HasSubstr(std::string("field \"") + key + "\" is missing"));
  }
  removed_ = {"llorch_trace"};
  EXPECT_THAT(error(), HasSubstr("this is no trace"));
  removed_ = {"model", "model_hash", "plan_hash", "device", "kv_dtype", "build", "steps"};
  changed_ = {{"numerics", "outside"}};
  EXPECT_EQ(error(), "(no error)");
}

TEST_F(BadTraceFile, TensorsAreRowsOfF32) {
  const auto bytes = std::as_bytes(std::span(values_));
  EXPECT_THAT(error({"embed", DType::kF16, {3, 2}, bytes.first(12)}), HasSubstr("tensor embed: dtype: expected f32"));
  EXPECT_THAT(error({"embed", DType::kF32, {4, 2}, bytes.first(32)}),
              HasSubstr("shape: expected [3 or 2, width] for 3 tokens, 2 of them the prompt, got [4, 2]"));
  EXPECT_THAT(error({"embed", DType::kF32, {3}, bytes.first(12)}), HasSubstr("got [3]"));
  EXPECT_THAT(error({"embed", DType::kF32, {3, 0}, {}}), HasSubstr("got [3, 0]"));
  EXPECT_EQ(error({"embed", DType::kF32, {2, 2}, bytes.first(16)}), "(no error)");
}

// A flipped bit in the file is refused, or read without reading outside: anything but Error fails the test.
TEST_F(BadTraceFile, AnyChangedByteIsAnErrorOrATrace) {
  error();
  std::ostringstream text;
  text << std::ifstream(path_, std::ios::binary).rdbuf();
  size_t refused = 0;
  for (size_t i = 0; i < text.str().size(); ++i) {
    std::string changed = text.str();
    changed[i] = static_cast<char>(changed[i] ^ (1 << (i % 7)));
    std::ofstream(path_, std::ios::binary | std::ios::trunc) << changed;
    if (error_of_opening(path_) != "(no error)") ++refused;
  }
  EXPECT_GT(refused, 100u);
}

}  // namespace
}  // namespace llorch
