// Events on their way from the engine thread to their sinks.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "engine/sequence.h"

namespace llorch {

// Sinks take their time, 5 us an event through the server. So the engine collects events while it decides, and delivers
// them, in order, while a device computes the next step. Not thread-safe: belongs to the engine thread.
class Outbox {
 public:
  // The engine outlives a sink that breaks its promise; what such a sink misses is its own loss.
  static void emit(const Sequence& sequence, const Event& event) noexcept;

  bool empty() const { return outgoing_.empty(); }

  // The sequence lives until it has been sent its last event.
  void send(const Sequence& sequence, Event event);
  void send_last(std::unique_ptr<Sequence> sequence, Event event);

  // before_last hears of each last event before the sink does.
  void deliver(const std::function<void(const Sequence&, const Event&)>& before_last);

 private:
  struct Outgoing {
    const Sequence* sequence = nullptr;
    std::unique_ptr<Sequence> ended;  // the same, if this is its last event
    Event event;
  };
  std::vector<Outgoing> outgoing_;
};

}  // namespace llorch
