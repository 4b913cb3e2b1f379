// A sequence's result depends on its request alone: random mixes, chunks, preemptions and cancels against a lone loop.
#include <gtest/gtest.h>

#include <random>
#include <thread>

#include "engine/client_for_test.h"
#include "engine/engine.h"
#include "engine/fake_program_for_test.h"

namespace llorch {
namespace {

constexpr uint32_t kVocab = 50;

Request random_request(std::mt19937& random, uint32_t positions) {
  const auto pick = [&](std::initializer_list<float> values) { return *(values.begin() + random() % values.size()); };
  Request request;
  request.tokens.resize(1 + random() % (positions - 1));
  for (int32_t& id : request.tokens) id = static_cast<int32_t>(random() % kVocab);
  request.max_tokens = 1 + static_cast<uint32_t>(random() % (positions - request.tokens.size()));
  request.sampling.temperature = pick({0.0f, 0.7f, 1.0f});
  request.sampling.top_k = static_cast<uint32_t>(pick({0, 5}));
  request.sampling.top_p = pick({0.9f, 1.0f});
  request.sampling.min_p = pick({0.0f, 0.05f});
  request.sampling.repetition_penalty = pick({1.0f, 1.2f});
  request.sampling.seed = random();
  if (random() % 2 == 0) request.eos = {static_cast<int32_t>(random() % kVocab)};
  return request;
}

TEST(EngineMix, ResultsEqualTheLoneLoop) {
  uint64_t preemptions = 0;
  for (uint32_t seed = 0; seed < 60; ++seed) {
    std::mt19937 random(seed);
    const auto up_to = [&](uint32_t n) { return 1 + static_cast<uint32_t>(random() % n); };
    FakeOptions fake;
    fake.vocab = kVocab;
    fake.page_size = up_to(16);
    fake.n_pages = 8 + up_to(40);
    fake.context = 128;
    fake.max_in_flight = 1 + seed % 2;
    EngineOptions options;
    options.max_running = up_to(12);
    options.max_step_rows = options.max_running + up_to(40);
    options.max_prefill_rows = up_to(40);
    const uint32_t positions = std::min(fake.context, fake.n_pages * fake.page_size);
    Engine engine(std::make_unique<FakeProgram>(fake), options);
    std::vector<Request> requests;
    std::vector<Client> clients;
    for (int i = 0; i < 25; ++i) {
      requests.push_back(random_request(random, positions));
      clients.emplace_back(engine, requests.back());
    }
    for (size_t i = 0; i < clients.size(); ++i)
      ASSERT_EQ(clients[i].result(), fake_result(requests[i], kVocab)) << "seed " << seed << ", request " << i;
    ASSERT_EQ(engine.stats().kv_pages_free, fake.n_pages);
    ASSERT_EQ(engine.stats().running + engine.stats().waiting, 0u);
    preemptions += engine.stats().preemptions;
  }
  EXPECT_GT(preemptions, 50u);  // the mixes are hard enough
}

// 4 threads keep 16 requests each alive, 264 in all, and cancel 200 of them at random moments.
TEST(EngineMix, SurvivesTwoHundredCancelsAmongSixtyFour) {
  FakeOptions fake;
  fake.vocab = kVocab;
  fake.n_pages = 40;
  fake.context = 120;
  fake.before_run = [](const Batch&) { std::this_thread::sleep_for(std::chrono::microseconds(100)); };
  EngineOptions options;
  options.max_prefill_rows = 32;
  Engine engine(std::make_unique<FakeProgram>(fake), options);
  std::atomic<uint32_t> n_cancelled = 0, n_cut_short = 0;
  const auto client_thread = [&](uint32_t seed) {
    std::mt19937 random(seed);
    struct Live {
      Request request;
      Client client;
      bool cancel;
    };
    std::vector<Live> live;
    const auto end_one = [&] {
      std::swap(live[random() % live.size()], live.back());
      const Live one = std::move(live.back());
      live.pop_back();
      if (one.cancel) {
        std::this_thread::sleep_for(std::chrono::microseconds(random() % 2000));
        engine.cancel(one.client.id());
        ++n_cancelled;
      }
      const FakeResult expected = fake_result(one.request, kVocab);
      if (!one.client.code().empty()) {
        EXPECT_EQ(one.client.code(), "CANCELLED");
        EXPECT_EQ(one.client.n_events(), 1u);
        ++n_cut_short;
      } else if (one.client.finish().reason == FinishReason::kCancelled) {
        const std::vector<int32_t>& got = one.client.tokens();
        ASSERT_LE(got.size(), expected.tokens.size());
        EXPECT_TRUE(std::equal(got.begin(), got.end(), expected.tokens.begin()));
        EXPECT_TRUE(one.cancel);
        ++n_cut_short;
      } else {
        EXPECT_EQ(one.client.result(), expected);
      }
    };
    for (uint32_t i = 0; i < 66; ++i) {
      Request request = random_request(random, fake.context);
      live.push_back({request, Client(engine, request), i % 33 < 25});
      if (live.size() == 16) end_one();
    }
    while (!live.empty()) end_one();
  };
  std::vector<std::thread> threads;
  for (uint32_t seed = 0; seed < 4; ++seed) threads.emplace_back(client_thread, seed);
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(n_cancelled, 200u);
  EXPECT_GT(n_cut_short, 20u);
  EXPECT_TRUE(engine.drain(std::chrono::steady_clock::now() + std::chrono::seconds(10)));
  EXPECT_EQ(engine.stats().kv_pages_free, fake.n_pages);
}

// The seed's case: warm-up, a prompt of 5 tokens, another, the first again. Whether both answers to the first are those
// of a fresh process.
bool first_prompt_keeps_its_answer(bool fault) {
  EngineOptions options;
  options.fault_keep_positions = fault;
  Engine engine(std::make_unique<FakeProgram>(FakeOptions()), options);
  engine.warm_up();
  Request first, second;
  first.tokens = {11, 12, 13, 14, 15};
  second.tokens = {21, 22, 23, 24, 25, 26, 27};
  first.max_tokens = second.max_tokens = 20;
  const FakeResult before = Client(engine, first).result();
  Client(engine, second).wait();
  const FakeResult after = Client(engine, first).result();
  const FakeResult fresh = fake_result(first, kVocab);
  return before == fresh && after == fresh;
}

TEST(EngineMix, TheSeedsCase) { EXPECT_TRUE(first_prompt_keeps_its_answer(false)); }

TEST(EngineMix, TheSeedsCaseFailsWhenPositionsAreNotReset) { EXPECT_FALSE(first_prompt_keeps_its_answer(true)); }

}  // namespace
}  // namespace llorch
