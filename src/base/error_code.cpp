#include "base/error_code.h"

#include <iterator>

namespace llorch {
namespace {

// Exit codes: 1 it failed, 2 the caller can mend it, 3 start another process.
constexpr ErrorInfo kInfos[] = {
    {ErrorCode::kInvalidRequest, "INVALID_REQUEST", 400, 2, false, "mend what the message or `errors` names"},
    {ErrorCode::kOutOfPages, "OUT_OF_PAGES", 400, 2, false, "ask for fewer positions, or raise --kv-memory"},
    {ErrorCode::kUnauthorized, "UNAUTHORIZED", 401, 0, false, "send Authorization: Bearer with the worker's token"},
    {ErrorCode::kNotFound, "NOT_FOUND", 404, 0, false, "use one of the paths that the message names"},
    {ErrorCode::kMethodNotAllowed, "METHOD_NOT_ALLOWED", 405, 0, false, "use the method that the header Allow names"},
    {ErrorCode::kJobExists, "JOB_EXISTS", 409, 0, false, "choose another job_id, or wait for the end of that job"},
    {ErrorCode::kPayloadTooLarge, "PAYLOAD_TOO_LARGE", 413, 0, false, "send a smaller body"},
    {ErrorCode::kUnsupportedMediaType, "UNSUPPORTED_MEDIA_TYPE", 415, 0, false, "send application/json"},
    {ErrorCode::kHeaderTooLarge, "HEADER_TOO_LARGE", 431, 0, false, "send fewer or shorter headers"},
    {ErrorCode::kInternal, "INTERNAL", 500, 0, false, "report it, with the worker's log"},
    {ErrorCode::kQueueFull, "QUEUE_FULL", 503, 0, true, "send it again after Retry-After, or to another worker"},
    {ErrorCode::kTooManyConnections, "TOO_MANY_CONNECTIONS", 503, 0, true, "connect again after Retry-After"},
    {ErrorCode::kShuttingDown, "SHUTTING_DOWN", 503, 0, true, "send it to another worker"},
    {ErrorCode::kCancelled, "CANCELLED", 0, 0, false, "nothing: it was asked for"},
    {ErrorCode::kTimeout, "TIMEOUT", 0, 0, true, "raise --request-timeout, or ask for fewer tokens"},
    {ErrorCode::kInferenceFailed, "INFERENCE_FAILED", 0, 1, true, "look at the step with `llorch plan MODEL`"},
    {ErrorCode::kVramOom, "VRAM_OOM", 0, 1, true, "free memory on the device, or lower --kv-memory"},
    {ErrorCode::kNumericFault, "NUMERIC_FAULT", 0, 1, false, "look at the weight that cause names; try --backend cpu"},
    {ErrorCode::kDeviceLost, "DEVICE_LOST", 0, 3, true, "send it to another worker; start this one anew"},
    {ErrorCode::kWorkerFault, "WORKER_FAULT", 0, 3, false, "report it, with the worker's log"},
    {ErrorCode::kStepHangs, "STEP_HANGS", 0, 0, false, "wait, or kill the worker and start it anew"},
    {ErrorCode::kStepsFail, "STEPS_FAIL", 0, 0, false, "look at the causes in the log"},
    {ErrorCode::kInvalidInput, "INVALID_INPUT", 0, 2, false, "mend the flag that the message names"},
    {ErrorCode::kInvalidModel, "INVALID_MODEL", 0, 2, false, "mend the file that the message names"},
    {ErrorCode::kSelfTestFailed, "SELF_TEST_FAILED", 0, 1, false, "run `llorch doctor MODEL`"},
    {ErrorCode::kCommandFailed, "COMMAND_FAILED", 0, 1, false, "read the message"},
};

constexpr bool is_in_order() {
  for (size_t i = 0; i < std::size(kInfos); ++i)
    if (kInfos[i].code != static_cast<ErrorCode>(i)) return false;
  return std::size(kInfos) == static_cast<size_t>(ErrorCode::kCommandFailed) + 1;
}
static_assert(is_in_order());

}  // namespace

std::span<const ErrorInfo> error_infos() { return kInfos; }

const ErrorInfo& info(ErrorCode code) { return kInfos[static_cast<size_t>(code)]; }

}  // namespace llorch
