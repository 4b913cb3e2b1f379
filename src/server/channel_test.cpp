// Channels and their bell on an io_context that runs when the test says so.
#include "server/channel.h"

#include <gtest/gtest.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <optional>

namespace llorch {
namespace {

class ChannelTest : public testing::Test {
 protected:
  // Takes what comes through a channel until two events have.
  void listen(const std::shared_ptr<Channel>& channel, std::vector<uint32_t>& indexes, std::shared_ptr<int> held = {}) {
    const auto loop = [](std::shared_ptr<Channel> from, std::vector<uint32_t>& out,
                         std::shared_ptr<int>) -> asio::awaitable<void> {
      std::vector<Event> events;
      while (out.size() < 2) {
        co_await from->wait();
        from->take(events);
        for (const Event& event : events) out.push_back(std::get<TokenEvent>(event).index);
      }
    };
    asio::co_spawn(*io_, loop(channel, indexes, std::move(held)), asio::detached);
    io_->poll();
  }

  static TokenEvent token(uint32_t index) { return {7, index}; }

  std::optional<asio::io_context> io_{std::in_place, 1};
  std::optional<Bell> bell_{std::in_place, *io_};
};

TEST_F(ChannelTest, TheBellIsAnsweredOnceForManyChannels) {
  constexpr size_t kChannels = 5;
  std::vector<std::shared_ptr<Channel>> channels;
  std::vector<std::vector<uint32_t>> taken(kChannels);
  for (size_t i = 0; i < kChannels; ++i) {
    channels.push_back(std::make_shared<Channel>(*bell_));
    listen(channels[i], taken[i]);
  }
  for (uint32_t index = 0; index < 2; ++index)
    for (const auto& channel : channels) channel->sink()(token(index));
  EXPECT_EQ(io_->poll_one(), 1u);
  EXPECT_EQ(taken, std::vector(kChannels, std::vector<uint32_t>{0, 1})) << "in one go, in order";
}

TEST_F(ChannelTest, WhatComesLaterRingsAgain) {
  const auto channel = std::make_shared<Channel>(*bell_);
  std::vector<uint32_t> taken;
  channel->sink()(token(0));  // before anybody waits
  listen(channel, taken);
  EXPECT_EQ(taken, (std::vector<uint32_t>{0}));
  EXPECT_TRUE(channel->started());
  channel->sink()(token(1));
  EXPECT_EQ(taken.size(), 1u) << "nothing happens on the engine's thread";
  io_->restart();
  io_->poll();
  EXPECT_EQ(taken, (std::vector<uint32_t>{0, 1}));
}

TEST_F(ChannelTest, AnInterruptEndsTheWait) {
  const auto channel = std::make_shared<Channel>(*bell_);
  bool ended = false;
  asio::co_spawn(*io_, channel->wait(), [&](std::exception_ptr) { ended = true; });
  io_->poll();
  EXPECT_FALSE(ended);
  channel->interrupt();
  io_->poll();
  EXPECT_TRUE(ended);
}

TEST_F(ChannelTest, AClosedChannelLeavesNothingBehind) {
  const auto channel = std::make_shared<Channel>(*bell_);
  const EventSink sink = channel->sink();
  std::vector<uint32_t> taken;
  auto held = std::make_shared<int>(1);
  const std::weak_ptr<int> watched = held;
  listen(channel, taken, std::move(held));
  sink(token(0));  // rings, and is closed before the answer
  channel->close();
  sink(token(1));
  io_->poll();
  EXPECT_TRUE(taken.empty());
  EXPECT_TRUE(watched.expired()) << "the coroutine that waited is gone";
  io_.reset();
  bell_.reset();
  sink(token(2));  // the engine may be late
}

}  // namespace
}  // namespace llorch
