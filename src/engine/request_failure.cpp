#include "engine/request_failure.h"

namespace llorch {
namespace {

std::string sentence(ErrorCode code, const std::string& step) {
  if (code == ErrorCode::kDeviceLost) return fmt::format("The device was lost in step {}.", step);
  if (code == ErrorCode::kVramOom) return fmt::format("There was no memory for step {}.", step);
  if (code == ErrorCode::kWorkerFault) return fmt::format("A bug of the worker broke step {}.", step);
  return fmt::format("The device refused step {}.", step);
}

}  // namespace

FailEvent failure(ErrorCode code, std::string message) {
  FailEvent event;
  event.code = code;
  event.message = std::move(message);
  return event;
}

FailEvent shutting_down() {
  return failure(ErrorCode::kShuttingDown, "The worker is shutting down and takes no new requests.");
}

FailEvent failure_of(const std::exception& error, ErrorCode other) {
  FailEvent event;
  if (const auto* request = dynamic_cast<const RequestError*>(&error)) {
    event = request->event();
    event.message = error.what();
    return event;
  }
  event.code = code_of(error, other);
  event.causes = cause_chain(error);
  event.message = event.causes.front();
  event.causes.erase(event.causes.begin());
  if (const auto* failed = dynamic_cast<const StepError*>(&error)) {
    event.step = failed->failure();
    event.message = sentence(event.code, event.step->step);  // the rest has fields of its own
  }
  return event;
}

std::string with_causes(const FailEvent& event) {
  std::string text = event.message;
  if (!text.empty() && text.back() == '.' && !event.causes.empty()) text.pop_back();
  for (const std::string& cause : event.causes) text += ": " + cause;
  return text;
}

}  // namespace llorch
