// The way from the engine thread to a connection: one queue of small events per request.
#pragma once

#include <memory>
#include <mutex>
#include <vector>

#include "engine/request.h"
#include "server/asio.h"
#include "server/bell.h"

namespace llorch {

// The queue is bounded by the request itself (max_tokens and two more events), so a reader that stops stalls nobody.
// However many events come, it rings once until they are taken. After close() the engine may keep its sink as long as
// it likes, also beyond the bell and its io_context.
class Channel : public std::enable_shared_from_this<Channel> {
 public:
  explicit Channel(Bell& bell);
  ~Channel();

  EventSink sink();  // shares ownership; any thread

  // io thread: puts everything queued into `events`, in order, for what was in there.
  void take(std::vector<Event>& events);

  // io thread: returns when the bell has been answered for this channel since the last call, or interrupt() was called.
  // So each round of one that waits and takes leaves the io thread to others. Who waits when the channel is closed
  // never returns: its coroutine is destroyed.
  asio::awaitable<void> wait();
  void interrupt();
  void close();

  bool started() const;  // any event has come: the request waits no longer

 private:
  friend class Bell;
  struct Waiter;

  void push(const Event& event);
  void wake();

  Bell& bell_;
  // io thread
  std::unique_ptr<Waiter> waiter_;
  bool rung_ = false, interrupted_ = false;
  mutable std::mutex mutex_;
  std::vector<Event> queue_;
  bool started_ = false;
  bool rings_ = false;  // and nothing has been taken since
  bool closed_ = false;
};

}  // namespace llorch
