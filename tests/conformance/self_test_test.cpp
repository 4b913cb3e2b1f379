// The isolation gate on real models: the fixture, random ones of every type, and the embedded one.
#include "engine/self_test.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "backends_under_test.h"
#include "whole_model.h"

namespace llorch {
namespace {

using test::WholeModel;

SelfTest run(const WholeModel& model, const SelfTestOptions& options = {}) {
  const auto backend = test::one_backend();
  const auto weights = backend->place(model.plan, model.source);
  const auto compile = [&](const CompileOptions& how) { return backend->compile(model.plan, weights, how); };
  const auto program = compile({.kv = {.n_pages = 8, .page_size = 64}, .max_rows = 512});
  return self_test(*program, compile, options);
}

TEST(SelfTest, PassesOnEveryModel) {
  LLORCH_SKIP_WITHOUT_BACKEND();
  for (const WholeModel& model : test::whole_models()) EXPECT_EQ(run(model).histories.size(), 6u) << model.name;
}

TEST(SelfTest, PassesOnTheEmbeddedModel) {
  LLORCH_SKIP_WITHOUT_BACKEND();
  const std::string folder = LLORCH_SOURCE_DIR "/models/story-7m";
  if (!std::filesystem::exists(folder)) GTEST_SKIP() << "there is no " << folder;
  const auto checkpoint = std::make_shared<Checkpoint>(Checkpoint::open(folder));
  const WholeModel model{
      "story-7m",
      load_model(*checkpoint).plan,
      {.open = [checkpoint](const Weight& w) { return checkpoint->at(w.name); }, .close = [](const Tensor&) {}}};
  EXPECT_EQ(run(model).histories.size(), 6u);
}

TEST(SelfTest, KeptPositionsAreFoundOnEveryModel) {
  LLORCH_SKIP_WITHOUT_BACKEND();
  SelfTestOptions options;
  options.engine.fault_keep_positions = true;
  for (const WholeModel& model : test::whole_models()) EXPECT_THROW(run(model, options), Error) << model.name;
}

}  // namespace
}  // namespace llorch
