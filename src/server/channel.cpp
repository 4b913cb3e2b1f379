// A mutex, a vector, and a timer as the bell.
#include "server/channel.h"

#include <boost/asio/post.hpp>
#include <utility>

namespace llorch {

Channel::Channel(asio::io_context& io) : io_(io), bell_(std::in_place, io, asio::steady_timer::time_point::max()) {}

EventSink Channel::sink() {
  return [self = shared_from_this()](const Event& event) { self->push(event); };
}

void Channel::push(const Event& event) {
  const std::lock_guard lock(mutex_);
  started_ = true;
  if (closed_) return;
  queue_.push_back(event);
  if (std::exchange(wake_posted_, true)) return;
  // Under the lock: close() must not return, and the io_context not end, between the check and the post.
  asio::post(io_, [self = shared_from_this()] { self->wake(); });
}

void Channel::wake() {
  {
    const std::lock_guard lock(mutex_);
    wake_posted_ = false;
  }
  if (bell_) bell_->cancel();
}

std::vector<Event> Channel::take() {
  const std::lock_guard lock(mutex_);
  return std::exchange(queue_, {});
}

asio::awaitable<void> Channel::wait() {
  const auto nothing = [this] {
    const std::lock_guard lock(mutex_);
    return queue_.empty();
  };
  while (!interrupted_ && nothing()) {
    boost::system::error_code rung;
    co_await bell_->async_wait(asio::redirect_error(asio::use_awaitable, rung));
  }
}

void Channel::interrupt() {
  interrupted_ = true;
  if (bell_) bell_->cancel();
}

void Channel::close() {
  bell_.reset();
  const std::lock_guard lock(mutex_);
  closed_ = true;
  queue_.clear();
}

bool Channel::started() const {
  const std::lock_guard lock(mutex_);
  return started_;
}

}  // namespace llorch
