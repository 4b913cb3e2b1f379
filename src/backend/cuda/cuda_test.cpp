// The host side of the CUDA backend, on the emulated device: what is refused, what is missing, what is lost.
#include <cuda_runtime.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "backend/cuda/cuda_backend.h"
#include "backend/cuda/one_token_for_test.h"
#include "plan/builder.h"

namespace llorch {
namespace {

using testing::HasSubstr;

constexpr uint32_t kVocab = 40, kWidth = 32;

// embed, attention of one head, logits.
Plan small_plan(uint32_t head_dim) {
  PlanBuilder b(kVocab, 1, {1, 1, head_dim},
                {64, head_dim / 2, std::vector<float>(32 * head_dim, 1.0f), std::vector<float>(32 * head_dim, 0.0f)});
  const SlotId x = b.slot("x", kWidth), qkv = b.slot("qkv", 3 * head_dim), y = b.slot("y", head_dim);
  const SlotId logits = b.slot("logits", kVocab);
  b.step("embed", Embed{x, b.weight("table", DType::kF32, {kVocab, kWidth})});
  b.step("qkv", Linear{x, qkv, {b.weight("qkv", DType::kF32, {3 * head_dim, kWidth})}, {}, false});
  b.step("rope", RopeAppend{qkv, 0, RopePairs::kInterleaved});
  b.step("attn", Attention{qkv, y, 0, 1.0f});
  b.step("logits", Linear{y, logits, {b.weight("head", DType::kF32, {kVocab, head_dim})}, {}, false});
  return std::move(b).build();
}

WeightSource ones() {
  const auto bytes = std::make_shared<std::vector<float>>();
  return {.open =
              [bytes](const Weight& w) {
                bytes->assign(static_cast<size_t>(w.shape[0] * w.shape[1]), 1.0f);
                return Tensor{w.name, w.dtype, w.shape, std::as_bytes(std::span(*bytes))};
              },
          .close = [bytes](const Tensor&) { bytes->assign(bytes->size(), 2.0f); }};
}

std::unique_ptr<Program> compile(Backend& backend, const Plan& plan, uint32_t n_pages = 2) {
  return backend.compile(plan, backend.place(plan, ones()), {.kv = {.n_pages = n_pages, .page_size = 16}});
}

template <typename F>
std::string error_of(F f) {
  try {
    f();
  } catch (const std::exception& error) {
    return with_causes(error);
  }
  return "nothing";
}

TEST(Cuda, ADeviceThatIsNotThereIsNamed) {
  EXPECT_FALSE(cuda_is_missing({0}).has_value());
  EXPECT_THAT(cuda_is_missing({7}).value_or(""), HasSubstr("there is no device 7: the devices are 0 to 2"));
  EXPECT_THAT(error_of([] { make_cuda_backend({7}); }), HasSubstr("there is no device 7"));
}

TEST(Cuda, MemoryThatIsMissingIsSaidWithItsNumbers) {
  const auto backend = make_cuda_backend({});
  try {
    compile(*backend, small_plan(64), 2'000'000);
    FAIL();
  } catch (const CodedError& error) {
    EXPECT_EQ(error.code(), ErrorCode::kVramOom);
    EXPECT_THAT(error.what(), HasSubstr("the KV pages need 8192000000 bytes more of the device's memory"));
    EXPECT_THAT(error.what(), HasSubstr("are free"));
  }
  EXPECT_GT(backend->memory()->free, 0u);
}

TEST(Cuda, AHeadSizeWithoutKernelsIsRefused) {
  const auto backend = make_cuda_backend({});
  EXPECT_THAT(error_of([&] { compile(*backend, small_plan(12)); }),
              HasSubstr("head size 12: the cuda backend takes multiples of 8 up to 256"));
}

TEST(Cuda, RowsAreReadBackAsTheyWereWhenTheSourceGaveThem) {
  const auto backend = make_cuda_backend({});
  const auto weights = backend->place(small_plan(64), ones());
  std::vector<float> row(kWidth);
  weights->read_row(WeightId{0}, 39, row.data());
  EXPECT_EQ(row, std::vector<float>(kWidth, 1.0f));
}

TEST(Cuda, ALostDeviceIsSaidWithWhatTheDriverSays) {
  const auto backend = make_cuda_backend({});
  const auto program = compile(*backend, small_plan(64));
  for (int i = 0; i < 3; ++i) EXPECT_EQ(program->run(one_token()).size(), kVocab);  // by itself, recorded, replayed
  void* memory = nullptr;
  cudaMalloc(&memory, 16);
  static_cast<char*>(memory)[16] = 1;  // what a kernel that writes out of bounds does
  for (const bool traced : {false, true}) {
    try {
      if (traced)
        program->trace(one_token(), StepSet(5), {});
      else
        program->run(one_token());
      ADD_FAILURE();
    } catch (const CodedError& error) {
      EXPECT_EQ(error.code(), ErrorCode::kDeviceLost);
      EXPECT_THAT(with_causes(error), HasSubstr("cudaErrorIllegalAddress"));
      // Step by step the failure has an address.
      EXPECT_THAT(error.what(),
                  HasSubstr(traced ? "step embed (embed) failed" : "lost in a step of a batch of 1 rows"));
    }
  }
  static_cast<char*>(memory)[16] = -1;
  cudaFree(memory);
}

}  // namespace
}  // namespace llorch
