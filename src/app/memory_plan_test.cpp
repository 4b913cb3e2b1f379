// What a model is given of a device's memory, and what is refused before anything is loaded.
#include "app/memory_plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace llorch {
namespace {

using testing::HasSubstr;

constexpr uint64_t kPage = 65536;  // 2 (K, V) * 2 layers * 2 heads * 64 positions * 64 * f16
constexpr uint64_t kWeights = 600 * kPage, kActivations = 90 * kPage, kReserve = 10 * kPage;
constexpr uint64_t kFixed = kWeights + kActivations + kReserve;

Plan shape() {
  Plan plan;
  plan.n_layers = 2;
  plan.heads = {8, 2, 64};
  plan.rope.half_dim = 32;
  return plan;
}

std::vector<MemoryNeed> needs(const Plan& plan, const CompileOptions& options) {
  return {{MemoryKind::kWeights, "weights, q4_0", kWeights},
          {MemoryKind::kActivations, "slots", kActivations},
          {MemoryKind::kKv, "KV pages", options.kv.n_pages * kv_page_bytes(plan, options.kv)},
          {MemoryKind::kReserve, "reserve", kReserve},
          {MemoryKind::kHost, "logits", 100 * kPage},
          {MemoryKind::kLoading, "buffers", 20 * kPage}};
}

// 2000 pages, of which others have 100.
MemoryPlace device() {
  return {.backend = {"cuda", "a device"}, .needs = needs, .memory = DeviceMemory{1900 * kPage, 2000 * kPage}};
}

MemoryPlan plan_for(const LoadOptions& options, const MemoryPlace& place, uint32_t model_context = 1024) {
  return plan_memory(options, shape(), model_context, place);
}

template <typename Exception>
std::string refusal(const LoadOptions& options, const MemoryPlace& place, ErrorCode code) {
  try {
    plan_for(options, place);
  } catch (const Exception& error) {
    EXPECT_EQ(error.code(), code);
    return error.what();
  }
  return "nothing was refused";
}

TEST(MemoryPlan, KvPagesGetWhatIsLeftOfTheShare) {
  LoadOptions options;
  options.max_sequences = 1000;
  const MemoryPlan plan = plan_for(options, device());  // 0.9
  EXPECT_EQ(plan.compile.kv.n_pages, 1800 - 100 - kFixed / kPage);
  EXPECT_EQ(plan.pages_that_fit, 1000u);
  EXPECT_EQ(plan.context, 1024u);
  EXPECT_EQ(device_bytes(plan.needs), kFixed + 1000 * kPage);
  options.gpu_memory_utilization = 0.5;
  EXPECT_EQ(plan_for(options, device()).compile.kv.n_pages, 200u);
  options.gpu_memory_utilization = 1.0;
  EXPECT_EQ(plan_for(options, device()).compile.kv.n_pages, 1200u);
}

TEST(MemoryPlan, NoMorePagesThanAllSequencesCanUse) {
  LoadOptions options;
  options.max_sequences = 7;
  EXPECT_EQ(plan_for(options, device()).compile.kv.n_pages, 7 * 16u);
  options.context = 65;
  EXPECT_EQ(plan_for(options, device()).compile.kv.n_pages, 7 * 2u);
  EXPECT_EQ(plan_for(options, device()).pages_that_fit, 1000u);
}

TEST(MemoryPlan, TheModelsContextIsBoundedByWhatFitsAnAskedOneIsRefused) {
  LoadOptions options;
  EXPECT_EQ(plan_for(options, device(), 1'000'000).context, 64'000u);
  options.gpu_memory_utilization = 0.5;
  options.context = 1000;
  EXPECT_EQ(plan_for(options, device()).context, 1000u);
  options.gpu_memory_utilization = 0.405;  // 10 pages, of 64 positions
  EXPECT_THAT(refusal<InputError>(options, device(), ErrorCode::kOutOfPages),
              HasSubstr("one sequence of 1000 positions needs 1.0 MiB, but --gpu-memory-utilization 0.405 leaves 0.6 "
                        "MiB; lower --ctx or raise --gpu-memory-utilization"));
  options.gpu_memory_utilization = 0.1;  // less than there is in use
  EXPECT_THAT(refusal<InputError>(options, device(), ErrorCode::kOutOfPages), HasSubstr("leaves 0.0 MiB"));
}

TEST(MemoryPlan, WhatDoesNotFitIsRefusedWithBothNumbers) {
  MemoryPlace small = device();
  small.memory->free = kFixed - 1;
  const std::string said = refusal<CodedError>({}, small, ErrorCode::kVramOom);
  EXPECT_THAT(said, HasSubstr(fmt::format("needs {} bytes of the device's memory (weights {}, activations {}, reserve "
                                          "{}), of which {} are free; use a smaller model",
                                          kFixed, kWeights, kActivations, kReserve, kFixed - 1)));
  LoadOptions options;
  options.kv_memory = 1300 * kPage;  // 1200 are free
  EXPECT_THAT(refusal<CodedError>(options, device(), ErrorCode::kVramOom),
              HasSubstr(fmt::format("needs {} bytes", kFixed + 1300 * kPage)));
  options.kv_memory = 1200 * kPage;
  EXPECT_EQ(plan_for(options, device()).compile.kv.n_pages, 1200u);
}

TEST(MemoryPlan, TheBuffersOfTheLoadingCountWhileTheyAreThere) {
  MemoryPlace small = device();
  small.needs = [](const Plan&, const CompileOptions&) -> std::vector<MemoryNeed> {
    return {{MemoryKind::kWeights, "weights", kWeights}, {MemoryKind::kLoading, "buffers", 20 * kPage}};
  };
  small.memory->free = kWeights + 20 * kPage - 1;
  EXPECT_THAT(refusal<CodedError>({}, small, ErrorCode::kVramOom),
              HasSubstr(fmt::format("needs {} bytes", kWeights + 20 * kPage)));
}

TEST(MemoryPlan, TheSelfTestsProgramHasItsRoom) {
  LoadOptions options;
  options.max_sequences = 1000;
  options.self_test = true;
  const MemoryPlan plan = plan_for(options, device());
  EXPECT_LT(plan.compile.kv.n_pages, 1000 - kActivations / kPage);
  EXPECT_GE(plan.compile.kv.n_pages, 1000 - kActivations / kPage - 3);
}

TEST(MemoryPlan, OfTheSystemsMemoryHalfIsLeftAndNoShareIsAsked) {
  MemoryPlace system = device();
  system.is_system = true;
  system.memory = DeviceMemory{kFixed + 20 * kPage + 1, 0};
  EXPECT_EQ(plan_for({}, system).compile.kv.n_pages, 10u);
  EXPECT_EQ(plan_for({}, system).context, 640u);
  LoadOptions options;
  options.gpu_memory_utilization = 0.5;
  EXPECT_THAT(refusal<InputError>(options, system, ErrorCode::kInvalidInput), HasSubstr("no memory of its own"));
  options.gpu_memory_utilization = 0.0;
  options.context = 2000;
  EXPECT_THAT(refusal<InputError>(options, system, ErrorCode::kInvalidInput),
              HasSubstr("--ctx 2000: the model was made for 1024 positions"));
}

TEST(MemoryPlan, WithoutADeviceTheNeedsOfOneSequenceAreTold) {
  MemoryPlace nowhere = device();
  nowhere.memory.reset();
  const MemoryPlan plan = plan_for({}, nowhere);
  EXPECT_EQ(plan.compile.kv.n_pages, 16u);
  EXPECT_FALSE(plan.pages_that_fit.has_value());
  EXPECT_THAT(to_text(plan, nowhere), HasSubstr("KV pages of one sequence"));
}

TEST(MemoryPlan, TheTableHasAllNumbers) {
  const std::string text = to_text(plan_for({}, device()), device());
  for (const uint64_t number : {kWeights, kActivations, kReserve, 1000 * kPage, kFixed + 1000 * kPage, 1900 * kPage,
                                100 * kPage, 2000 * kPage, 20 * kPage})
    EXPECT_THAT(text, HasSubstr(fmt::format(" {} ", number)));
  EXPECT_THAT(text, HasSubstr("1000 of 64 positions, f16: 65536 bytes each, 1024 a position"));
  EXPECT_THAT(text, HasSubstr("KV pages that fit: 1000 (64000 positions)"));
}

}  // namespace
}  // namespace llorch
