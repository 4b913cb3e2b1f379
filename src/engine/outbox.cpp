#include "engine/outbox.h"

#include <utility>

namespace llorch {

void Outbox::emit(const Sequence& sequence, const Event& event) noexcept {
  try {
    sequence.sink(event);
  } catch (...) {
  }
}

void Outbox::send(const Sequence& sequence, Event event) {
  outgoing_.push_back({&sequence, nullptr, std::move(event)});
}

void Outbox::send_last(std::unique_ptr<Sequence> sequence, Event event) {
  const Sequence* const key = sequence.get();
  outgoing_.push_back({key, std::move(sequence), std::move(event)});
}

void Outbox::deliver(const std::function<void(const Sequence&, const Event&)>& before_last) {
  for (const Outgoing& out : outgoing_) {
    if (out.ended) before_last(*out.sequence, out.event);
    emit(*out.sequence, out.event);
  }
  outgoing_.clear();
}

}  // namespace llorch
