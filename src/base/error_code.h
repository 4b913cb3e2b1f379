// The codes of all that can go wrong: what clients, logs and exit codes say of it. docs/errors.md shows the table.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

namespace llorch {

enum class ErrorCode : uint8_t {
  // A request is refused.
  kInvalidRequest,
  kOutOfPages,
  kUnauthorized,
  kNotFound,
  kMethodNotAllowed,
  kJobExists,
  kPayloadTooLarge,
  kUnsupportedMediaType,
  kHeaderTooLarge,
  kInternal,
  kQueueFull,
  kTooManyConnections,
  kShuttingDown,
  // A request ends.
  kCancelled,
  kTimeout,
  kInferenceFailed,
  kVramOom,
  kNumericFault,
  kDeviceLost,
  kWorkerFault,
  // The worker is unhealthy.
  kStepHangs,
  kStepsFail,
  // A command ends.
  kInvalidInput,
  kInvalidModel,
  kSelfTestFailed,
  kCommandFailed,
};

struct ErrorInfo {
  ErrorCode code;
  std::string_view name;    // "NUMERIC_FAULT"
  unsigned http;            // status of a refusal; 0: it is not refused with this code
  int exit;                 // of a process that ends with it; 0: none does
  bool retriable;           // the same request may succeed if it is sent again, here or to another worker
  std::string_view remedy;  // what to do
};

// Every code, in the order of the enum.
std::span<const ErrorInfo> error_infos();

const ErrorInfo& info(ErrorCode code);
inline std::string_view to_string(ErrorCode code) { return info(code).name; }

}  // namespace llorch
