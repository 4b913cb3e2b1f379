// Mutexes, vectors, and the rest of a coroutine that waits.
#include "server/channel.h"

#include <boost/asio/async_result.hpp>
#include <utility>

namespace llorch {

// What goes on when the channel is woken, whatever its type.
struct Channel::Waiter {
  virtual ~Waiter() = default;
  virtual void go_on() = 0;
};

Channel::Channel(Bell& bell) : bell_(bell) {}

Channel::~Channel() = default;

EventSink Channel::sink() {
  return [self = shared_from_this()](const Event& event) { self->push(event); };
}

void Channel::push(const Event& event) {
  const std::lock_guard lock(mutex_);
  started_ = true;
  if (closed_) return;
  queue_.push_back(event);
  // Under the lock: close() must not return, and the bell not end, between the check and the ring.
  if (!std::exchange(rings_, true)) bell_.ring(shared_from_this());
}

void Channel::take(std::vector<Event>& events) {
  events.clear();
  const std::lock_guard lock(mutex_);
  events.swap(queue_);
  rings_ = false;
}

asio::awaitable<void> Channel::wait() {
  const auto suspend = [this](auto handler) {
    struct Suspended final : Waiter {
      explicit Suspended(decltype(handler)&& h) : rest(std::move(h)) {}
      void go_on() override { std::move(rest)(); }
      decltype(handler) rest;
    };
    waiter_ = std::make_unique<Suspended>(std::move(handler));
  };
  if (!rung_ && !interrupted_) {
    co_await asio::async_initiate<const asio::use_awaitable_t<>, void()>(suspend, asio::use_awaitable);
  }
  rung_ = false;
}

void Channel::wake() {
  rung_ = true;
  if (const auto waiter = std::exchange(waiter_, nullptr)) waiter->go_on();
}

void Channel::interrupt() {
  interrupted_ = true;
  bell_.ring(shared_from_this());
}

void Channel::close() {
  {
    const std::lock_guard lock(mutex_);
    closed_ = true;
    queue_.clear();
  }
  waiter_.reset();
}

bool Channel::started() const {
  const std::lock_guard lock(mutex_);
  return started_;
}

}  // namespace llorch
