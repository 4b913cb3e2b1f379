// Loading onto the emulated device: what is allocated is what was planned, pieces come together, failures end it.
#include <cuda_runtime.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "backend/cuda/cuda_backend.h"
#include "backend/cuda/one_token_for_test.h"
#include "backend/open_weight.h"
#include "plan/builder.h"

namespace llorch {
namespace {

using testing::HasSubstr;

constexpr uint32_t kVocab = 301, kWidth = 512, kHeadDim = 64;

// One layer of attention with a norm, and matrices of three types, in groups that are not full.
Plan mixed_plan() {
  PlanBuilder b(
      kVocab, 1, {2, 1, kHeadDim},
      {200, kHeadDim / 2, std::vector<float>(200 * kHeadDim / 2, 1.0f), std::vector<float>(200 * kHeadDim / 2, 0.0f)});
  const SlotId x = b.slot("x", kWidth), norm = b.slot("norm", kWidth), qkv = b.slot("qkv", 4 * kHeadDim);
  const SlotId y = b.slot("y", 2 * kHeadDim), last = b.slot("last", 2 * kHeadDim), logits = b.slot("logits", kVocab);
  b.step("embed", Embed{x, b.weight("table", DType::kQ8_0, {kVocab, kWidth})});
  b.step("norm", RmsNorm{x, norm, b.weight("norm.weight", DType::kF16, {kWidth}), 1e-5f});
  b.step("qkv", Linear{norm, qkv, {b.weight("qkv", DType::kQ4_K, {4 * kHeadDim, kWidth})}, {}, false});
  b.step("rope", RopeAppend{qkv, 0, RopePairs::kInterleaved});
  b.step("attn", Attention{qkv, y, 0, 1.0f});
  b.step("gather", GatherRows{y, last});
  b.step("logits", Linear{last, logits, {b.weight("head", DType::kF16, {kVocab, 2 * kHeadDim})}, {}, false});
  return std::move(b).build();
}

// Zeros, made for each weight anew.
struct Zeros {
  std::vector<std::byte> bytes;
  std::function<void()> on_close = [] {};

  WeightSource source() {
    return {.open =
                [this](const Weight& w) {
                  bytes.assign(file_bytes(w), std::byte{0});
                  return Tensor{w.name, w.dtype, w.shape, bytes};
                },
            .close = [this](const Tensor&) { on_close(); }};
  }
};

class LoadTest : public testing::TestWithParam<int> {
 protected:
  uint64_t used() const { return backend_->memory()->total - backend_->memory()->free; }

  const std::unique_ptr<Backend> backend_ = make_cuda_backend({GetParam()});
  const uint64_t used_before_ = used();
  const size_t pinned_before_ = cuda_emulator::pinned_bytes();
};
INSTANTIATE_TEST_SUITE_P(Cuda, LoadTest, testing::Values(0, 1, 2));

TEST_P(LoadTest, WhatIsAllocatedIsWhatWasPlanned) {
  const Plan plan = mixed_plan();
  CompileOptions options{.kv = {.n_pages = 5, .page_size = 16}, .max_rows = 40, .max_logit_rows = 3};
  for (const DType kv : {DType::kF16, DType::kF32, DType::kQ8_0}) {
    options.kv.dtype = kv;
    options.numerics = kv == DType::kF32 ? Numerics::kExact : Numerics::kFast;
    const std::vector<MemoryNeed> needs = cuda_memory_needs(plan, options);
    EXPECT_EQ(device_bytes(backend_->memory_needs(plan, options)), device_bytes(needs));
    const uint64_t weight_bytes = bytes_of(needs, MemoryKind::kWeights);
    uint64_t while_loading = 0;
    size_t pinned_while_loading = 0;
    Zeros zeros;
    zeros.on_close = [&] {
      while_loading = std::max(while_loading, used() - used_before_);
      pinned_while_loading = std::max(pinned_while_loading, cuda_emulator::pinned_bytes() - pinned_before_);
    };
    const auto weights = backend_->place(plan, zeros.source());
    EXPECT_EQ(weights->bytes(), weight_bytes);
    EXPECT_EQ(used() - used_before_, weight_bytes);
    EXPECT_EQ(cuda_emulator::pinned_bytes(), pinned_before_);
    EXPECT_GT(while_loading, weight_bytes);
    EXPECT_LE(while_loading, weight_bytes + bytes_of(needs, MemoryKind::kLoading));
    EXPECT_GT(pinned_while_loading, 0u);
    EXPECT_LE(pinned_while_loading, bytes_of(needs, MemoryKind::kLoading));

    const uint64_t lasting = device_bytes(needs) - bytes_of(needs, MemoryKind::kReserve);
    const auto program = backend_->compile(plan, weights, options);
    EXPECT_EQ(weights->bytes() + program->bytes(), lasting);
    for (int i = 0; i < 3; ++i) {  // by itself, recorded, replayed: nothing is allocated in a step
      EXPECT_EQ(used() - used_before_, lasting);
      EXPECT_EQ(cuda_emulator::pinned_bytes() - pinned_before_, bytes_of(needs, MemoryKind::kHost));
      program->run(one_token());
    }
  }
}

// A table of several pieces, each row told by its number, with rows of other weights before and behind it.
TEST_P(LoadTest, PiecesOfAWeightComeTogetherInTheirPlaces) {
  constexpr int64_t kRows = 20'001, kCols = 64;  // 5 MB
  PlanBuilder b(kRows, 0, {}, {});
  const SlotId x = b.slot("x", kCols), logits = b.slot("logits", kRows);
  b.step("embed", Embed{x, b.weight("table", DType::kF32, {kRows, kCols})});
  const WeightId bias = b.weight("bias", DType::kF32, {kRows});
  const WeightId head = b.weight("head", DType::kF32, {kRows, kCols});
  b.step("logits", Linear{x, logits, {head}, {bias}, false});
  const Plan plan = std::move(b).build();

  std::vector<std::vector<float>> values;
  std::vector<std::string> events;
  const auto open = [&](const Weight& w) {
    std::vector<float>& v = values.emplace_back(file_bytes(w) / sizeof(float));
    for (size_t i = 0; i < v.size(); ++i) v[i] = static_cast<float>(i + values.size());
    events.push_back("+" + w.name);
    return Tensor{w.name, w.dtype, w.shape, std::as_bytes(std::span(v))};
  };
  const auto close = [&](const Tensor& t) {
    events.push_back("-" + t.name);
    const auto it = std::find_if(values.begin(), values.end(), [&](const std::vector<float>& v) {
      return std::as_bytes(std::span(v)).data() == t.bytes.data();
    });
    std::fill(it->begin(), it->end(), -1.0f);  // who reads on is found out
  };
  for (const size_t max_open : {1, 2, 100}) {
    values.clear();
    events.clear();
    values.reserve(3);
    const auto weights = backend_->place(plan, {.open = open, .close = close, .max_open = max_open});
    using Events = std::vector<std::string>;
    EXPECT_EQ(events, max_open == 1   ? Events({"+table", "-table", "+bias", "-bias", "+head", "-head"})
                      : max_open == 2 ? Events({"+table", "+bias", "-table", "+head", "-bias", "-head"})
                                      : Events({"+table", "+bias", "+head", "-table", "-bias", "-head"}));
    for (const int64_t row : {0, 31, 8191, 8192, 16383, 16384, 19'999, 20'000}) {
      std::vector<float> got(kCols);
      weights->read_row(WeightId{0}, row, got.data());
      for (int64_t c = 0; c < kCols; ++c)
        ASSERT_EQ(got[static_cast<size_t>(c)], static_cast<float>(row * kCols + c + 1));
      weights->read_row(head, row, got.data());
      for (int64_t c = 0; c < kCols; ++c)
        ASSERT_EQ(got[static_cast<size_t>(c)], static_cast<float>(row * kCols + c + 3));
    }
    std::vector<float> got(kRows);
    weights->read_row(bias, 0, got.data());
    for (size_t i = 0; i < got.size(); ++i) ASSERT_EQ(got[i], static_cast<float>(i + 2));
  }
}

TEST_P(LoadTest, ASourceThatFailsEndsItAndLeavesNothing) {
  const Plan plan = mixed_plan();
  for (const size_t max_open : {1, 100})
    for (const char* broken : {"table", "norm.weight", "head"}) {
      std::map<std::string, std::vector<std::byte>> bytes;
      const WeightSource source{.open =
                                    [&](const Weight& w) {
                                      if (w.name == broken) fail("{} cannot be read", w.name);
                                      std::vector<std::byte>& b = bytes[w.name];
                                      b.assign(file_bytes(w), std::byte{0});
                                      return Tensor{w.name, w.dtype, w.shape, b};
                                    },
                                .close = [](const Tensor&) {},
                                .max_open = max_open};
      try {
        backend_->place(plan, source);
        ADD_FAILURE() << broken;
      } catch (const Error& error) {
        EXPECT_EQ(std::string(error.what()), std::string(broken) + " cannot be read");
      }
      EXPECT_EQ(used(), used_before_);
      EXPECT_EQ(cuda_emulator::pinned_bytes(), pinned_before_);
    }
}

TEST_P(LoadTest, ADeviceThatIsLostMeanwhileIsSaid) {
  cudaSetDevice(GetParam());
  void* memory = nullptr;
  cudaMalloc(&memory, 16);
  Zeros zeros;
  zeros.on_close = [&] { static_cast<char*>(memory)[16] = 1; };  // what a kernel that writes out of bounds does
  try {
    backend_->place(mixed_plan(), zeros.source());
    ADD_FAILURE();
  } catch (const CodedError& error) {
    EXPECT_EQ(error.code(), ErrorCode::kDeviceLost);
    EXPECT_THAT(error.what(), HasSubstr("cudaErrorIllegalAddress"));
  }
  static_cast<char*>(memory)[16] = -1;
  cudaFree(memory);
  EXPECT_EQ(used(), used_before_);
}

TEST(Load, TwoDevicesAreLoadedAndRunInTurn) {
  const auto first = make_cuda_backend({0}), second = make_cuda_backend({2});
  const Plan plan = mixed_plan();
  const CompileOptions options{.kv = {.n_pages = 5, .page_size = 16}};
  Zeros zeros;
  const auto a = first->compile(plan, first->place(plan, zeros.source()), options);
  const auto b = second->compile(plan, second->place(plan, zeros.source()), options);
  for (int i = 0; i < 3; ++i)
    for (Program* program : {a.get(), b.get()}) EXPECT_EQ(program->run(one_token()).size(), kVocab);
  std::vector<float> row(kWidth, 1.0f);
  a->weights().read_row(WeightId{0}, 5, row.data());
  EXPECT_EQ(row, std::vector<float>(kWidth, 0.0f));
}

}  // namespace
}  // namespace llorch
