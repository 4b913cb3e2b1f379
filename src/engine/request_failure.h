// A failure as a FailEvent, and a FailEvent as an exception.
#pragma once

#include <exception>

#include "engine/request.h"

namespace llorch {

// A request of llorch's own that has failed: a warm-up, say. what() is "<during>: <the event's message>".
class RequestError : public CodedError {
 public:
  RequestError(const std::string& during, FailEvent event)
      : CodedError(event.code, fmt::format("{}: {}", during, event.message)), event_(std::move(event)) {}
  const FailEvent& event() const { return event_; }

 private:
  FailEvent event_;
};

// Of a code and its sentence alone.
FailEvent failure(ErrorCode code, std::string message);

// What a request is told that comes after drain() or stop().
FailEvent shutting_down();

// What a Program threw, or anything else: its code (`other` of an Error without one), one sentence, the step if it is
// known, and the chain of causes. Of a RequestError its event. Else without position and kv_len, which are each
// sequence's own.
FailEvent failure_of(const std::exception& error, ErrorCode other);

// The message and its causes: "There was no memory for step embed: std::bad_alloc".
std::string with_causes(const FailEvent& event);

}  // namespace llorch
