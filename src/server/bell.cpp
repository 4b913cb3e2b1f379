// A list of channels, and at most one handler on its way to answer it.
#include "server/bell.h"

#include <boost/asio/post.hpp>
#include <utility>

#include "server/channel.h"

namespace llorch {

void Bell::ring(std::shared_ptr<Channel> channel) {
  const std::lock_guard lock(mutex_);
  ringing_.push_back(std::move(channel));
  if (!std::exchange(answer_posted_, true)) asio::post(io_, [this] { answer(); });
}

void Bell::answer() {
  {
    const std::lock_guard lock(mutex_);
    answer_posted_ = false;
    answered_.swap(ringing_);
  }
  for (const auto& channel : answered_) channel->wake();
  answered_.clear();
}

}  // namespace llorch
