// Faults that are planted in the weights of real models: the event of the request that meets them names step, position
// and weight, and the requests beside it keep their bits.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <functional>

#include "backend/reference/reference_backend.h"
#include "backends_under_test.h"
#include "engine/client_for_test.h"
#include "engine/engine.h"
#include "engine/request_failure.h"
#include "whole_model.h"

namespace llorch {
namespace {

using test::WholeModel;
using testing::HasSubstr;

// A model whose weight `name` is changed before a backend sees it.
WholeModel changed(WholeModel model, const std::string& name, const std::function<void(std::span<std::byte>)>& change) {
  const auto& weights = model.plan.weights;
  EXPECT_TRUE(std::any_of(weights.begin(), weights.end(), [&](const Weight& w) { return w.name == name; })) << name;
  auto bytes = std::make_shared<std::vector<std::byte>>();
  model.source.open = [name, bytes, change, open = model.source.open](const Weight& weight) {
    Tensor tensor = open(weight);
    if (weight.name != name) return tensor;
    bytes->assign(tensor.bytes.begin(), tensor.bytes.end());
    change(*bytes);
    tensor.bytes = *bytes;
    return tensor;
  };
  return model;
}

// The tiny fixture is bf16: the upper half of a float.
std::function<void(std::span<std::byte>)> put_bf16(size_t element, float value) {
  return [=](std::span<std::byte> bytes) {
    const uint16_t half = f32_to_bf16(value);
    std::memcpy(bytes.data() + element * sizeof half, &half, sizeof half);
  };
}

std::unique_ptr<Engine> make_engine(Backend& backend, const WholeModel& model) {
  auto program = backend.compile(model.plan, backend.place(model.plan, model.source),
                                 {.kv = {.n_pages = 8, .page_size = 16}, .max_rows = 64});
  return std::make_unique<Engine>(std::move(program), EngineOptions{.device = backend.info().device});
}

Request make_request(std::vector<int32_t> prompt) {
  Request request;
  request.tokens = std::move(prompt);
  request.max_tokens = 12;
  return request;
}

const std::vector<int32_t> kSick = {0, 50, 60, 70, 80};
const std::vector<int32_t> kWell = {0, 44, 91, 17, 230, 122};

// What the request for kSick is told, on both backends alike.
FailEvent failure_of(const WholeModel& model) {
  const auto backend = test::one_backend();
  const auto reference = make_reference_backend();
  FailEvent failure = Client(*make_engine(*backend, model), make_request(kSick)).failure();
  EXPECT_EQ(Client(*make_engine(*reference, model), make_request(kSick)).failure().causes, failure.causes);
  EXPECT_EQ(failure.code, ErrorCode::kNumericFault);
  EXPECT_TRUE(failure.step.has_value());
  if (!failure.step) failure.step.emplace();
  return failure;
}

TEST(Tripwire, ANanInAnEmbeddingHurtsThoseWhoReadIt) {
  LLORCH_SKIP_WITHOUT_BACKEND();
  const WholeModel sound = test::tiny_llama();
  const WholeModel model = changed(sound, "token_embd.weight", put_bf16(size_t{70} * 64 + 9, NAN));
  const FailEvent failure = failure_of(model);
  EXPECT_EQ(with_causes(failure),
            "The logits at position 4 hold NaN: the first step that gives NaN is embed, at position 3, element 9: "
            "weight token_embd.weight at column 9 of the token's row is NaN")
      << "the row, 70, is a token of the prompt";
  EXPECT_EQ(failure.step->step, "embed");
  EXPECT_EQ(failure.step->dtype, "bf16");
  EXPECT_EQ(failure.step->shapes, "residual f32 [5, 64]");
  EXPECT_EQ(failure.position, 3u);
  EXPECT_EQ(failure.kv_len, 5u);

  // The one that does not read it, alone with the sound model and beside the sick one.
  const auto backend = test::one_backend();
  const auto alone = make_engine(*backend, sound);
  const Client expected(*alone, make_request(kWell));
  ASSERT_EQ(expected.code(), "");
  const auto engine = make_engine(*backend, model);
  const Client before(*engine, make_request(kWell)), sick(*engine, make_request(kSick)),
      after(*engine, make_request(kWell));
  EXPECT_EQ(sick.code(), "NUMERIC_FAULT");
  for (const Client* client : {&before, &after}) {
    ASSERT_EQ(client->code(), "");
    EXPECT_EQ(client->tokens(), expected.tokens());
    EXPECT_EQ(client->finish().logits_hash, expected.finish().logits_hash);
  }
}

TEST(Tripwire, ANanInAMatrixIsNamedWithItsPlace) {
  LLORCH_SKIP_WITHOUT_BACKEND();
  const FailEvent failure =
      failure_of(changed(test::tiny_llama(), "layers.1.attn_k.weight", put_bf16(size_t{5} * 64 + 3, NAN)));
  EXPECT_EQ(failure.step->step, "layers.1.qkv");
  EXPECT_EQ(failure.position, 0u);
  EXPECT_THAT(with_causes(failure), HasSubstr("at position 0, element 69: weight layers.1.attn_k.weight at "
                                              "row 5, column 3 is NaN"));  // 64 rows of q stand before k
}

TEST(Tripwire, ANanInANormIsNamedWithItsElement) {
  LLORCH_SKIP_WITHOUT_BACKEND();
  const FailEvent failure = failure_of(changed(test::tiny_llama(), "output_norm.weight", put_bf16(17, NAN)));
  EXPECT_EQ(failure.step->step, "output_norm");
  EXPECT_EQ(failure.position, 4u);
  EXPECT_THAT(with_causes(failure), HasSubstr("element 17: weight output_norm.weight at element 17 is NaN"));
}

TEST(Tripwire, AnOverflowNamesTheLargestWeight) {
  LLORCH_SKIP_WITHOUT_BACKEND();
  const FailEvent failure = failure_of(changed(test::tiny_llama(), "layers.0.ffn_up.weight", [](auto bytes) {
    for (size_t i = 0; i < 64; ++i) put_bf16(size_t{7} * 64 + i, i % 2 == 0 ? 3e38f : -3e38f)(bytes);
  }));
  EXPECT_EQ(failure.step->step, "layers.0.gate_up");
  EXPECT_THAT(with_causes(failure),
              HasSubstr("element 199: its inputs and weights are finite"));  // 192 of gate, then row 7
  EXPECT_THAT(with_causes(failure), HasSubstr("the largest weight that it reads there is 3.00406e+38"));
  EXPECT_THAT(with_causes(failure), HasSubstr("layers.0.ffn_up.weight at row 7, column 0"));
}

TEST(Tripwire, AHeadOfZerosIsFound) {
  LLORCH_SKIP_WITHOUT_BACKEND();
  const FailEvent failure = failure_of(changed(test::tiny_llama(), "output.weight",
                                               [](auto bytes) { std::fill(bytes.begin(), bytes.end(), std::byte{}); }));
  EXPECT_EQ(with_causes(failure),
            "The logits at position 4 are all equal: the first step that gives a constant row is logits, at position "
            "4: all weights that it reads are zero");
}

TEST(Tripwire, ANormOfZerosIsFoundBeforeTheHead) {
  LLORCH_SKIP_WITHOUT_BACKEND();
  const FailEvent failure = failure_of(changed(test::tiny_llama(), "output_norm.weight",
                                               [](auto bytes) { std::fill(bytes.begin(), bytes.end(), std::byte{}); }));
  EXPECT_EQ(failure.step->step, "output_norm");
  EXPECT_THAT(with_causes(failure), HasSubstr("all weights that it reads are zero"));
}

}  // namespace
}  // namespace llorch
