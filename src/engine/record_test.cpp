// What the engine remembers: hashes of logits that follow the request alone, its last steps, records of failures.
#include "engine/record.h"

#include <gtest/gtest.h>

#include <future>
#include <mutex>

#include "engine/client_for_test.h"
#include "engine/engine.h"
#include "sampling/logits_hash.h"

namespace llorch {
namespace {

constexpr uint32_t kVocab = 50;

Request make_request(std::vector<int32_t> prompt, uint32_t max_tokens) {
  Request request;
  request.tokens = std::move(prompt);
  request.max_tokens = max_tokens;
  request.sampling.seed = 7;
  return request;
}

// Of the first n rows that a request which runs alone is sampled from.
uint64_t hash_of_rows(const Request& request, uint32_t n) {
  std::vector<int32_t> history = request.tokens;
  const std::vector<int32_t> generated = fake_result(request, kVocab).tokens;
  history.insert(history.end(), generated.begin(), generated.end());
  LogitsHash hash;
  uint64_t state = 0;
  for (uint32_t p = 0; p + 1 < request.tokens.size() + n; ++p) {
    state = fake_state(state, history[p], p);
    if (p + 1 < request.tokens.size()) continue;
    std::vector<float> logits;
    for (uint32_t id = 0; id < kVocab; ++id) logits.push_back(fake_logit(state, id));
    hash.add(hash_of_row(logits));
  }
  return hash.value();
}

TEST(Record, TheHashOfARequestIsThatOfItsRows) {
  Engine engine(std::make_unique<FakeProgram>(FakeOptions()), {});
  std::vector<uint64_t> hashes;
  const Request request = make_request({1, 2, 3}, 9);
  const Client client(engine, request, [&](const Event& event) {
    if (const auto* token = std::get_if<TokenEvent>(&event)) hashes.push_back(token->logits_hash);
  });
  EXPECT_EQ(client.finish().logits_hash, hash_of_rows(request, 9));
  ASSERT_EQ(hashes.size(), 9u);
  for (uint32_t i = 0; i < 9; ++i) EXPECT_EQ(hashes[i], hash_of_rows(request, i + 1));
  Request with_eos = request;
  with_eos.eos = {client.tokens()[5]};
  const Client ended(engine, with_eos);
  EXPECT_EQ(ended.finish().reason, FinishReason::kEos);
  EXPECT_EQ(ended.finish().logits_hash, hash_of_rows(request, static_cast<uint32_t>(ended.tokens().size()) + 1));
}

TEST(Record, PreemptionsDoNotShowInHashes) {
  std::promise<void> all_are_there;
  FakeOptions fake;
  fake.n_pages = 8;
  fake.before_run = [there = all_are_there.get_future().share()](const Batch&) { there.wait(); };
  Engine engine(std::make_unique<FakeProgram>(fake), {});
  std::vector<Request> requests;
  std::vector<Client> clients;
  for (int32_t i = 0; i < 6; ++i) {
    requests.push_back(make_request({i, 2, 3}, 60));
    clients.emplace_back(engine, requests.back());
  }
  all_are_there.set_value();
  for (size_t i = 0; i < clients.size(); ++i)
    EXPECT_EQ(clients[i].finish().logits_hash, hash_of_rows(requests[i], 60)) << i;
  EXPECT_GT(engine.stats().preemptions, 0u);
}

TEST(StepLog, KeepsTheLastOnesOldestFirst) {
  StepLog log;
  EXPECT_TRUE(log.last().empty());
  for (uint32_t i = 0; i < 3; ++i) log.add({.rows = i});
  ASSERT_EQ(log.last().size(), 3u);
  EXPECT_EQ(log.last()[0].rows, 0u);
  for (uint32_t i = 3; i < 100; ++i) log.add({.rows = i});
  ASSERT_EQ(log.last().size(), StepLog::kSize);
  for (uint32_t i = 0; i < StepLog::kSize; ++i) EXPECT_EQ(log.last()[i].rows, 100 - StepLog::kSize + i);
}

struct Recorded {
  EngineOptions options;
  std::vector<SequenceRecord> records;  // written on the engine thread before the client hears of the end

  Recorded() {
    options.on_record = [this](const SequenceRecord& record) { records.push_back(record); };
  }
};

TEST(Record, AFailureTellsWhatRunsItAgain) {
  FakeOptions fake;
  fake.before_run = [](const Batch& batch) {
    if (batch.sequences.front().first_position == 6) throw StepError({"embed", "embed", "[1, 8]", "toy"});
  };
  Recorded recorded;
  Engine engine(std::make_unique<FakeProgram>(fake), recorded.options);
  const Request request = make_request({4, 5, 6}, 20);
  const Client client(engine, request);
  ASSERT_EQ(client.code(), "INFERENCE_FAILED");
  ASSERT_EQ(recorded.records.size(), 1u);
  const SequenceRecord& record = recorded.records.front();
  EXPECT_EQ(record.id, client.id());
  std::vector<int32_t> tokens = {4, 5, 6};
  tokens.insert(tokens.end(), client.tokens().begin(), client.tokens().end());
  EXPECT_EQ(record.tokens, tokens);
  EXPECT_EQ(record.tokens.size(), 7u);
  EXPECT_EQ(record.n_prompt, 3u);
  EXPECT_EQ(record.max_tokens, 20u);
  EXPECT_EQ(record.sampling.seed, 7u);
  ASSERT_EQ(record.logits_hashes.size(), 4u);
  for (uint32_t i = 0; i < 4; ++i) EXPECT_EQ(record.logits_hashes[i], hash_of_rows(request, i + 1)) << i;
  ASSERT_TRUE(record.failure.has_value());
  EXPECT_EQ(record.failure->position, 6u);
  EXPECT_EQ(record.failure->logits_hash, record.logits_hashes.back());
  EXPECT_FALSE(record.finish.has_value());
  ASSERT_EQ(record.last_steps.size(), 5u);
  EXPECT_EQ(record.last_steps[0].rows, 3u);
  for (size_t i = 0; i < 5; ++i) {
    EXPECT_EQ(record.last_steps[i].failed, i == 4);
    EXPECT_EQ(record.last_steps[i].sequences, 1u);
    EXPECT_EQ(record.last_steps[i].logit_rows, 1u);
    const double earliest = i == 0 ? 0.0 : record.last_steps[i - 1].start_ms + record.last_steps[i - 1].ms;
    EXPECT_GE(record.last_steps[i].start_ms, earliest - 1e-6);  // sums of rounded milliseconds
  }
}

TEST(Record, OthersAreRecordedOnRequest) {
  Recorded recorded;
  Engine engine(std::make_unique<FakeProgram>(FakeOptions()), recorded.options);
  Request request = make_request({4, 5, 6}, 3);
  Client(engine, request).wait();
  EXPECT_TRUE(recorded.records.empty());
  request.record = true;
  const Client client(engine, request);
  EXPECT_EQ(client.code(), "");
  ASSERT_EQ(recorded.records.size(), 1u);
  EXPECT_FALSE(recorded.records.front().failure.has_value());
  EXPECT_EQ(recorded.records.front().finish, FinishReason::kMaxTokens);
  EXPECT_EQ(recorded.records.front().logits_hashes.back(), client.finish().logits_hash);
  request.eos = {client.tokens().back()};
  const Client ended(engine, request);
  EXPECT_EQ(ended.finish().reason, FinishReason::kEos);
  const SequenceRecord& record = recorded.records.back();
  EXPECT_EQ(record.finish, FinishReason::kEos);
  EXPECT_EQ(record.logits_hashes.size(), ended.tokens().size() + 1) << "the row that gave EOS has a hash too";
  EXPECT_EQ(record.logits_hashes.back(), ended.finish().logits_hash);
}

// Of what was only waiting when the device went there is nothing to run again.
TEST(Record, WhatHasNotBegunIsNotRecorded) {
  FakeOptions fake;
  std::promise<void> submitted;
  fake.before_run = [gate = submitted.get_future().share()](const Batch&) {
    gate.wait();
    throw CodedError(ErrorCode::kDeviceLost, "gone");
  };
  Recorded recorded;
  recorded.options.max_running = 1;
  Engine engine(std::make_unique<FakeProgram>(fake), recorded.options);
  const Client running(engine, make_request({1}, 3)), waiting(engine, make_request({2}, 3));
  submitted.set_value();
  EXPECT_EQ(running.code(), "DEVICE_LOST");
  EXPECT_EQ(waiting.code(), "DEVICE_LOST");
  ASSERT_EQ(recorded.records.size(), 1u);
  EXPECT_EQ(recorded.records.front().id, running.id());
}

TEST(Record, ARecorderThatThrowsHurtsNobody) {
  FakeOptions fake;
  fake.nan_token = 33;
  EngineOptions options;
  options.on_record = [](const SequenceRecord&) { throw std::runtime_error("no space left"); };
  Engine engine(std::make_unique<FakeProgram>(fake), options);
  EXPECT_EQ(Client(engine, make_request({33}, 3)).code(), "NUMERIC_FAULT");
  EXPECT_EQ(Client(engine, make_request({1}, 1)).code(), "");
}

}  // namespace
}  // namespace llorch
