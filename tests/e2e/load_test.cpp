// Many clients at once, most of which leave without a word.
#include <gtest/gtest.h>

#include <random>

#include "worker_for_test.h"

namespace llorch {
namespace {

constexpr int kStreams = 64;
constexpr int kDisconnects = 200;

nlohmann::json numbered(int n) {
  nlohmann::json body = job(fmt::format("n{}", n), 60, fmt::format("The fox number {} went to the hill", n));
  body["seed"] = n;
  return body;
}

struct Stream {
  explicit Stream(uint16_t port, int n) : number(n), client(port) {
    client.request("POST", "/execute", numbered(n).dump());
  }
  int number;
  TestClient client;
};

TEST(Load, SixtyFourStreamsAndTwoHundredDisconnectsLeaveNothingBehind) {
  Worker worker;
  const uint16_t port = worker.http();
  std::mt19937 random(3);
  int next = 0;
  std::vector<std::unique_ptr<Stream>> streams;
  while (next < kStreams) streams.push_back(std::make_unique<Stream>(port, next++));
  for (int i = 0; i < kDisconnects; ++i) {
    auto& stream = streams[random() % streams.size()];
    if (random() % 2 == 0 && stream->client.read_head().status == 200) {
      for (uint32_t n = random() % 4; n > 0; --n) stream->client.next_event();
    }
    stream = std::make_unique<Stream>(port, next++);  // the old one closes in whatever state it is
  }
  std::map<int, std::vector<int32_t>> together;
  for (auto& stream : streams) {
    ASSERT_EQ(stream->client.read_head().status, 200);
    const auto events = stream->client.all_events();
    ASSERT_FALSE(events.empty());
    ASSERT_EQ(events.back()["stop_reason"], "MAX_TOKENS");
    together[stream->number] = ids_of(events);
  }
  EXPECT_TRUE(soon([&] { return worker.idle(); })) << worker.health();
  for (int i = 0; i < 8; ++i) {
    const int n = streams[static_cast<size_t>(i * 8)]->number;
    EXPECT_EQ(ids_of(execute(port, numbered(n))), together[n]) << "alone, a request gives the same tokens";
  }
}

TEST(Load, FewPagesMakeRequestsWaitAndNotFail) {
  Worker worker({"--ctx", "512", "--kv-memory", "300000"});  // about two contexts
  std::vector<std::unique_ptr<Stream>> streams;
  for (int n = 0; n < 32; ++n) streams.push_back(std::make_unique<Stream>(worker.http(), n));
  for (auto& stream : streams) {
    ASSERT_EQ(stream->client.read_head().status, 200);
    EXPECT_EQ(stream->client.last_event()["tokens_out"], 60);
  }
  EXPECT_TRUE(soon([&] { return worker.idle(); })) << worker.health();
}

}  // namespace
}  // namespace llorch
