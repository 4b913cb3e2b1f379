// The way from the engine thread to a connection: one queue of small events per request.
#pragma once

#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "engine/request.h"
#include "server/asio.h"

namespace llorch {

// The queue is bounded by the request itself (max_tokens and two more events), so a reader that stops stalls nobody.
// However many events come, at most one wake-up is on its way to the io thread. After close() the engine may keep its
// sink as long as it likes, also beyond the io_context.
class Channel : public std::enable_shared_from_this<Channel> {
 public:
  explicit Channel(asio::io_context& io);

  EventSink sink();  // shares ownership; any thread

  // io thread: everything queued, in order; returns when something is queued or interrupt() was called.
  std::vector<Event> take();
  asio::awaitable<void> wait();
  void interrupt();
  void close();

  bool started() const;  // any event has come: the request waits no longer

 private:
  void push(const Event& event);
  void wake();

  asio::io_context& io_;
  // io thread. The bell never expires: cancelling it wakes the waiting coroutine. Gone after close().
  std::optional<asio::steady_timer> bell_;
  bool interrupted_ = false;
  mutable std::mutex mutex_;
  std::vector<Event> queue_;
  bool started_ = false;
  bool wake_posted_ = false;
  bool closed_ = false;
};

}  // namespace llorch
