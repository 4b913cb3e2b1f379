// Logits that must not be sampled from: what an engine does then.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/client_for_test.h"
#include "engine/engine.h"
#include "engine/request_failure.h"

namespace llorch {
namespace {

using testing::HasSubstr;

Request make_request(std::vector<int32_t> prompt, uint32_t max_tokens) {
  Request request;
  request.tokens = std::move(prompt);
  request.max_tokens = max_tokens;
  return request;
}

TEST(Tripwire, NamesTheFirstStepAndElement) {
  FakeOptions fake;
  fake.nan_token = 33;
  fake.max_rows = 3;  // the second run takes several batches; the fault is in the last
  Engine engine(std::make_unique<FakeProgram>(fake), {.device = "toy"});
  const FailEvent failure = Client(engine, make_request({1, 2, 3, 4, 5, 6, 33}, 5)).failure();
  EXPECT_EQ(failure.code, ErrorCode::kNumericFault);
  EXPECT_EQ(with_causes(failure),
            "The logits at position 6 hold NaN: the first step that gives NaN is layers.0.act, at position 6, element "
            "2: its inputs are finite, so it overflows or its arithmetic is at fault");
  ASSERT_TRUE(failure.step.has_value());
  EXPECT_EQ(failure.step->step, "layers.0.act");
  EXPECT_EQ(failure.step->verb, "gated_act");
  EXPECT_EQ(failure.step->shapes, "x f32 [1, 4] -> x f32 [1, 4]");
  EXPECT_EQ(failure.step->dtype, "f32");
  EXPECT_EQ(failure.step->device, "toy");
  EXPECT_EQ(failure.position, 6u);
  EXPECT_EQ(failure.kv_len, 7u);
}

// Spoils the logits of the row whose token is 33, in run() only.
FakeOptions spoiled_once(float value, bool whole_row) {
  FakeOptions fake;
  fake.after_run = [=](const Batch& batch, std::span<float> logits) {
    for (size_t i = 0; i < batch.logit_rows.size(); ++i) {
      if (batch.tokens[batch.logit_rows[i]] != 33) continue;
      const auto row = logits.subspan(i * 50, 50);
      std::fill(row.begin() + 7, whole_row ? row.end() : row.begin() + 8, value);
      if (whole_row) std::fill(row.begin(), row.end(), value);
    }
  };
  return fake;
}

TEST(Tripwire, SaysWhenItDoesNotOccurAgain) {
  const auto message = [](const FakeOptions& fake) {
    Engine engine(std::make_unique<FakeProgram>(fake), {});
    const FailEvent failure = Client(engine, make_request({1, 33}, 5)).failure();
    EXPECT_EQ(failure.code, ErrorCode::kNumericFault);
    EXPECT_FALSE(failure.step.has_value());
    EXPECT_EQ(failure.position, 1u);
    return with_causes(failure);
  };
  const std::string again = ": when the sequence was computed again this did not occur";
  EXPECT_EQ(message(spoiled_once(NAN, false)), "The logits at position 1 hold NaN" + again);
  EXPECT_EQ(message(spoiled_once(INFINITY, false)), "The logits at position 1 hold infinity" + again);
  EXPECT_EQ(message(spoiled_once(2.5f, true)), "The logits at position 1 are all equal" + again);
}

TEST(Tripwire, TellsWhenTheSecondRunFails) {
  FakeOptions fake = spoiled_once(NAN, false);
  fake.before_run = [n = 0](const Batch&) mutable {
    if (n++ == 1) throw Error("the device is gone");
  };
  Engine engine(std::make_unique<FakeProgram>(fake), {});
  EXPECT_EQ(Client(engine, make_request({1, 33}, 5)).failure().causes,
            (std::vector<std::string>{"computing the sequence again failed", "the device is gone"}));
}

// In one step with a faulty sequence, and after it.
TEST(Tripwire, TheOthersKeepTheirBits) {
  FakeOptions fake;
  fake.nan_token = 33;
  std::vector<Request> requests;
  for (int32_t i = 0; i < 6; ++i) requests.push_back(make_request({i, 2, 3}, 30));
  for (Request& request : requests) request.eos = {33};
  std::vector<uint64_t> alone;
  for (const Request& request : requests) {
    Engine engine(std::make_unique<FakeProgram>(fake), {});
    alone.push_back(Client(engine, request).finish().logits_hash);
  }
  EngineOptions options;
  options.max_prefill_rows = 3;  // the faulty one comes to its end beside others that decode and prefill
  Engine engine(std::make_unique<FakeProgram>(fake), options);
  std::vector<Client> clients;
  for (size_t i = 0; i < 3; ++i) clients.emplace_back(engine, requests[i]);
  const Client sick(engine, make_request({40, 41, 42, 43, 33}, 5));
  for (size_t i = 3; i < 6; ++i) clients.emplace_back(engine, requests[i]);
  EXPECT_EQ(sick.code(), "NUMERIC_FAULT");
  EXPECT_TRUE(sick.tokens().empty());
  for (size_t i = 0; i < 6; ++i) {
    EXPECT_EQ(clients[i].result(), fake_result(requests[i], 50)) << i;
    EXPECT_EQ(clients[i].finish().logits_hash, alone[i]) << i;
  }
  EXPECT_EQ(engine.stats().kv_pages_free, 64u);
}

}  // namespace
}  // namespace llorch
