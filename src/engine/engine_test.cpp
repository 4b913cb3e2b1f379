// The engine's promises one by one: events, refusals, cancels, deadlines, failures, shutdown.
#include "engine/engine.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <future>
#include <thread>

#include "engine/client_for_test.h"
#include "engine/fake_program_for_test.h"
#include "engine/request_failure.h"

namespace llorch {
namespace {

using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;

std::unique_ptr<Engine> make_engine(FakeOptions fake = {}, const EngineOptions& options = {}) {
  return std::make_unique<Engine>(std::make_unique<FakeProgram>(std::move(fake)), options);
}

Request make_request(uint32_t prompt, uint32_t max_tokens, int32_t first = 0) {
  Request request;
  request.tokens.resize(prompt);
  for (uint32_t i = 0; i < prompt; ++i) request.tokens[i] = (first + static_cast<int32_t>(i)) % 50;
  request.max_tokens = max_tokens;
  return request;
}

FakeOptions slow(std::chrono::milliseconds step) {
  FakeOptions fake;
  fake.before_run = [step](const Batch&) { std::this_thread::sleep_for(step); };
  return fake;
}

TEST(Engine, StreamsWhatTheModelSays) {
  const auto engine = make_engine();
  const Request request = make_request(5, 20);
  const Client client(*engine, request);
  EXPECT_EQ(client.result(), fake_result(request, 50));
  EXPECT_EQ(client.n_events(), 22u);
  EXPECT_GE(client.finish().prefill_ms, 0.0);
  EXPECT_GE(client.finish().decode_ms, 0.0);
  const EngineStats stats = engine->stats();
  EXPECT_EQ(stats.running + stats.waiting, 0u);
  EXPECT_EQ(stats.kv_pages_free, stats.kv_pages_total);
  EXPECT_EQ(stats.steps, 20u);
  EXPECT_EQ(stats.rows, 24u);
  EXPECT_EQ(stats.tokens_generated, 20u);
}

TEST(Engine, EndsAtEosWithoutEmittingIt) {
  const auto engine = make_engine();
  Request request = make_request(5, 20);
  const std::vector<int32_t> tokens = fake_result(request, 50).tokens;
  request.eos = {tokens[9], tokens[7]};
  const auto at = std::find_first_of(tokens.begin(), tokens.end(), request.eos.begin(), request.eos.end());
  const Client client(*engine, request);
  EXPECT_EQ(client.finish().reason, FinishReason::kEos);
  EXPECT_EQ(client.tokens(), std::vector<int32_t>(tokens.begin(), at));
}

TEST(Engine, WarmsUpAsASequenceLikeAnyOther) {
  const auto engine = make_engine();
  EXPECT_GE(engine->warm_up(), 0.0);
  EXPECT_EQ(engine->stats().tokens_generated, 2u);
  EXPECT_EQ(engine->stats().kv_pages_free, 64u);
  FakeOptions broken;
  broken.before_run = [](const Batch&) { throw Error("no device"); };
  try {
    make_engine(broken)->warm_up();
    ADD_FAILURE() << "nothing was thrown";
  } catch (const RequestError& error) {
    EXPECT_STREQ(error.what(), "warm-up failed: no device");
    EXPECT_EQ(error.code(), ErrorCode::kInferenceFailed);
  }
}

TEST(Engine, RefusesWhatCanNeverFitWithBothCounts) {
  FakeOptions fake;
  fake.n_pages = 8;  // 128 positions
  const auto engine = make_engine(fake);
  const FailEvent context = Client(*engine, make_request(200, 57)).failure();
  EXPECT_EQ(context.code, ErrorCode::kInvalidRequest);
  EXPECT_EQ(context.message, "200 prompt tokens and max_tokens 57 are 257 positions; the context has 256.");
  const FailEvent pool = Client(*engine, make_request(100, 29)).failure();
  EXPECT_EQ(pool.code, ErrorCode::kOutOfPages);
  EXPECT_EQ(pool.message,
            "100 prompt tokens and max_tokens 29 are 129 positions; the whole KV memory holds 128 (8 pages of 16).");
  EXPECT_EQ(Client(*engine, make_request(100, 28)).code(), "");
  EXPECT_EQ(engine->refusal(make_request(100, 28)), std::nullopt);

  const auto code_of = [&](auto change) {
    Request request = make_request(3, 3);
    change(request);
    const std::optional<Refusal> refusal = engine->refusal(request);
    const std::string code = refusal ? std::string(to_string(refusal->code)) : "";
    EXPECT_EQ(Client(*engine, request).code(), code);
    return code;
  };
  EXPECT_EQ(code_of([](Request& r) { r.tokens.clear(); }), "INVALID_REQUEST");
  EXPECT_EQ(code_of([](Request& r) { r.tokens[1] = 50; }), "INVALID_REQUEST");
  EXPECT_EQ(code_of([](Request& r) { r.tokens[1] = -1; }), "INVALID_REQUEST");
  EXPECT_EQ(code_of([](Request& r) { r.max_tokens = 0; }), "INVALID_REQUEST");
  EXPECT_EQ(code_of([](Request& r) { r.max_tokens = ~0u; }), "INVALID_REQUEST");
  EXPECT_EQ(code_of([](Request& r) { r.sampling.temperature = NAN; }), "INVALID_REQUEST");
  EXPECT_EQ(code_of([](Request& r) { r.sampling.temperature = -1; }), "INVALID_REQUEST");
  EXPECT_EQ(code_of([](Request& r) { r.sampling.top_p = 1.5f; }), "INVALID_REQUEST");
  EXPECT_EQ(code_of([](Request& r) { r.sampling.min_p = -0.1f; }), "INVALID_REQUEST");
  EXPECT_EQ(code_of([](Request& r) { r.sampling.repetition_penalty = INFINITY; }), "INVALID_REQUEST");
  EXPECT_EQ(code_of([](Request&) {}), "");
}

TEST(Engine, CancelsWithinOneStepInPrefillToo) {
  std::atomic<uint32_t> runs = 0;
  std::promise<void> cancelled;
  FakeOptions fake;
  fake.before_run = [&, wait = cancelled.get_future().share()](const Batch&) {
    ++runs;
    wait.wait();  // the first step is under way when the cancel comes
  };
  EngineOptions options;
  options.max_prefill_rows = 8;
  const auto engine = make_engine(fake, options);
  const Client client(*engine, make_request(200, 10));
  while (runs == 0) std::this_thread::yield();
  engine->cancel(client.id());
  engine->cancel(client.id());
  engine->cancel(12345);
  cancelled.set_value();
  EXPECT_EQ(client.finish().reason, FinishReason::kCancelled);
  EXPECT_TRUE(client.tokens().empty());
  EXPECT_EQ(runs, 1u);
  EXPECT_EQ(engine->stats().kv_pages_free, 64u);
}

TEST(Engine, CancelsFromTheSink) {
  Engine* pointer = nullptr;
  const auto engine = make_engine(slow(1ms));
  pointer = engine.get();
  const Request request = make_request(5, 200);
  const Client client(*engine, request, [&](const Event& event) {
    const auto* token = std::get_if<TokenEvent>(&event);
    if (token != nullptr && token->index == 3) pointer->cancel(1);  // ids count from 1
  });
  ASSERT_EQ(client.id(), 1u);
  EXPECT_EQ(client.finish().reason, FinishReason::kCancelled);
  const std::vector<int32_t> all = fake_result(request, 50).tokens;
  // The next step has begun when the sink hears of a token.
  EXPECT_EQ(client.tokens(), std::vector<int32_t>(all.begin(), all.begin() + 5));
}

TEST(Engine, CancelBeforeTheStartIsAFailure) {
  EngineOptions options;
  options.max_running = 1;
  const auto engine = make_engine(slow(1ms), options);
  const Client running(*engine, make_request(5, 200));
  const Client waiting(*engine, make_request(5, 5));
  running.wait_for_tokens(1);
  engine->cancel(waiting.id());
  EXPECT_EQ(waiting.code(), "CANCELLED");
  EXPECT_EQ(waiting.n_events(), 1u);
  engine->cancel(running.id());
  EXPECT_EQ(running.finish().reason, FinishReason::kCancelled);
}

TEST(Engine, EndsAtTheDeadline) {
  const auto engine = make_engine(slow(5ms));
  Request request = make_request(5, 200);
  request.deadline = Clock::now() + 60ms;
  const Client late(*engine, request);
  EXPECT_EQ(late.code(), "TIMEOUT");
  EXPECT_GT(late.tokens().size(), 0u);
  request.deadline = Clock::now() - 1ms;
  const Client too_late(*engine, request);
  EXPECT_EQ(too_late.code(), "TIMEOUT");
  EXPECT_FALSE(too_late.started());
}

[[noreturn]] void throw_step_error() {
  try {
    fail("out of luck");
  } catch (...) {
    std::throw_with_nested(StepError({"layers.3.attn_out", "linear", "[1, 64]", "toy"}));
  }
}

TEST(Engine, AFailedStepEndsItsSequencesOnly) {
  FakeOptions fake;
  fake.before_run = [](const Batch& batch) {
    if (batch.sequences.front().first_position > 0) return;
    if (batch.tokens.front() == 13) throw_step_error();
    if (batch.tokens.front() == 14) throw std::runtime_error("no luck at all");
  };
  EngineOptions options;
  options.max_running = 1;  // one sequence a step
  const auto engine = make_engine(fake, options);
  const Client doomed(*engine, make_request(5, 10, 13));
  const Client next(*engine, make_request(5, 10, 20));
  const FailEvent failure = doomed.failure();
  EXPECT_EQ(failure.code, ErrorCode::kInferenceFailed);
  ASSERT_TRUE(failure.step.has_value());
  EXPECT_EQ(failure.step->step, "layers.3.attn_out");
  EXPECT_EQ(failure.causes, std::vector<std::string>{"out of luck"});
  EXPECT_EQ(failure.message, "The device refused step layers.3.attn_out.") << "no field is repeated";
  EXPECT_EQ(failure.position, 0u);
  EXPECT_EQ(failure.kv_len, 5u);
  EXPECT_EQ(next.result(), fake_result(make_request(5, 10, 20), 50));

  for (int i = 0; i < 3; ++i) {
    EXPECT_TRUE(engine->stats().healthy);
    const FailEvent other = Client(*engine, make_request(5, 10, 14)).failure();
    EXPECT_EQ(other.code, ErrorCode::kWorkerFault);
    EXPECT_EQ(other.message, "no luck at all");
    EXPECT_FALSE(other.step.has_value());
  }
  EXPECT_FALSE(engine->stats().healthy);
  EXPECT_EQ(Client(*engine, make_request(5, 1, 20)).code(), "");
  EXPECT_TRUE(engine->stats().healthy);
  EXPECT_EQ(engine->stats().kv_pages_free, 64u);
}

TEST(Engine, NeverSamplesFromNan) {
  FakeOptions fake;
  fake.nan_token = 33;
  const auto engine = make_engine(fake);
  const Client sick(*engine, make_request(4, 10, 30));  // ends with 33
  Request request = make_request(5, 10, 1);
  request.eos = {33};
  const Client well(*engine, request);
  const FailEvent failure = sick.failure();
  EXPECT_EQ(failure.code, ErrorCode::kNumericFault);
  EXPECT_EQ(failure.position, 3u);
  EXPECT_EQ(well.result(), fake_result(request, 50));
  EXPECT_TRUE(engine->stats().healthy);
}

TEST(Engine, ABugOfOursEndsEverythingButTheProcess) {
  class Wrong : public FakeProgram {
   public:
    using FakeProgram::FakeProgram;
    std::span<const SampledRow> finish() override { return FakeProgram::finish().subspan(1); }
  };
  std::promise<void> entered, leave;
  FakeOptions fake;
  fake.before_run = [&](const Batch&) {
    entered.set_value();
    leave.get_future().wait();
  };
  Engine engine(std::make_unique<Wrong>(fake), {});
  const Client first(engine, make_request(5, 10));
  entered.get_future().wait();
  const Client second(engine, make_request(5, 10));  // waits in the inbox while the first one's step goes wrong
  leave.set_value();
  EXPECT_EQ(first.code(), "WORKER_FAULT");
  EXPECT_EQ(second.code(), "WORKER_FAULT");
  EXPECT_EQ(Client(engine, make_request(5, 10)).code(), "WORKER_FAULT");
  EXPECT_FALSE(engine.stats().healthy);
  EXPECT_TRUE(engine.drain(Clock::now() + 10s));
  ASSERT_TRUE(engine.broken().has_value());
  ASSERT_EQ(engine.broken()->causes.size(), 1u);
  EXPECT_NE(engine.broken()->causes[0].find("0 tokens for 1 rows"), std::string::npos) << engine.broken()->causes[0];
}

TEST(Engine, ALostDeviceEndsEverythingButTheProcess) {
  FakeOptions fake;
  fake.before_run = [](const Batch& batch) {
    if (batch.tokens.front() == 13) throw CodedError(ErrorCode::kDeviceLost, "gone");
    if (batch.sequences.front().first_position > 0) std::this_thread::sleep_for(1ms);
  };
  fake.max_rows = 8;
  const auto engine = make_engine(fake);
  EXPECT_FALSE(engine->broken().has_value());
  EXPECT_EQ(Client(*engine, make_request(5, 1, 20)).code(), "");
  const Client doomed(*engine, make_request(5, 10, 13)), waiting(*engine, make_request(5, 10, 20));
  for (const Client* client : {&doomed, &waiting}) {
    EXPECT_EQ(client->code(), "DEVICE_LOST");
    EXPECT_EQ(client->failure().message, "gone");
  }
  EXPECT_EQ(Client(*engine, make_request(5, 10, 20)).code(), "DEVICE_LOST");
  EXPECT_EQ(engine->broken()->code, ErrorCode::kDeviceLost);
  EXPECT_FALSE(engine->stats().healthy);
}

// What start() throws is what its step fails with; the next step is as good as ever.
TEST(Engine, AStepThatCannotStartEndsItsSequences) {
  struct Device : FakeProgram {
    using FakeProgram::FakeProgram;
    void start(const Batch& batch, std::span<const RowSampling> rows) override {
      if (n_started_++ == 1) throw Error("no launch");
      FakeProgram::start(batch, rows);
    }
    int n_started_ = 0;
  };
  Engine engine(std::make_unique<Device>(FakeOptions()), {});
  const Request request = make_request(5, 3);
  const Client client(engine, request);
  EXPECT_EQ(client.failure().message, "no launch");
  EXPECT_EQ(client.tokens().size(), 1u);
  EXPECT_EQ(Client(engine, request).result(), fake_result(request, 50));
  EXPECT_EQ(engine.stats().kv_pages_free, 64u);
}

TEST(Engine, SaysHowLongAStepHasRun) {
  FakeOptions fake;
  std::promise<void> entered, leave;
  fake.before_run = [&, first = true](const Batch&) mutable {
    if (!std::exchange(first, false)) return;
    entered.set_value();
    leave.get_future().wait();
  };
  const auto engine = make_engine(fake);
  EXPECT_EQ(engine->stats().step_ms, 0.0);
  const Client client(*engine, make_request(5, 2));
  entered.get_future().wait();
  std::this_thread::sleep_for(2ms);
  EXPECT_GE(engine->stats().step_ms, 2.0);
  leave.set_value();
  EXPECT_EQ(client.code(), "");
  EXPECT_EQ(engine->stats().step_ms, 0.0);
}

TEST(Engine, DrainFinishesWhatIsThereAndRefusesTheRest) {
  EngineOptions options;
  options.max_running = 2;
  const auto engine = make_engine(slow(1ms), options);
  std::vector<Client> clients;
  for (int i = 0; i < 5; ++i) clients.emplace_back(*engine, make_request(5, 20, i));
  EXPECT_FALSE(engine->drain(Clock::now()));
  EXPECT_EQ(Client(*engine, make_request(5, 20)).code(), "SHUTTING_DOWN");
  EXPECT_TRUE(engine->drain(Clock::now() + 60s));
  for (int i = 0; i < 5; ++i) EXPECT_EQ(clients[i].result(), fake_result(make_request(5, 20, i), 50));
}

TEST(Engine, StopCancelsEverything) {
  EngineOptions options;
  options.max_running = 1;
  const auto engine = make_engine(slow(1ms), options);
  const Client running(*engine, make_request(5, 200)), waiting(*engine, make_request(5, 200));
  running.wait_for_tokens(1);
  engine->stop();
  engine->stop();
  EXPECT_EQ(running.finish().reason, FinishReason::kCancelled);
  EXPECT_EQ(waiting.code(), "CANCELLED");
  EXPECT_EQ(Client(*engine, make_request(5, 20)).code(), "SHUTTING_DOWN");
  EXPECT_TRUE(engine->drain(Clock::now()));
  engine->cancel(1);
}

TEST(Engine, TellsItsLoad) {
  EngineOptions options;
  options.max_running = 2;
  const auto engine = make_engine(slow(2ms), options);
  std::vector<Client> clients;
  for (int i = 0; i < 6; ++i) clients.emplace_back(*engine, make_request(5, 200, i));
  clients[1].wait_for_tokens(20);
  const EngineStats stats = engine->stats();
  EXPECT_EQ(stats.running, 2u);
  EXPECT_EQ(stats.waiting, 4u);
  EXPECT_LT(stats.kv_pages_free, 64u);
  EXPECT_GT(stats.tokens_per_sec, 1.0);
  EXPECT_LT(stats.tokens_per_sec, 1100.0);  // 2 in 2 ms or more
}

}  // namespace
}  // namespace llorch
