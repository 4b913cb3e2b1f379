// Codes and texts of refused requests.
#include "server/problem.h"

#include <fmt/format.h>

#include <utility>

namespace llorch {

nlohmann::json Problem::body() const {
  if (errors.empty()) return {{"code", to_string(code)}, {"message", message}, {"retriable", info(code).retriable}};
  nlohmann::json list = nlohmann::json::array();
  for (const FieldError& error : errors) {
    nlohmann::json entry = {{"field", error.field}, {"constraint", error.constraint}, {"message", error.message}};
    if (error.value) entry["value"] = *error.value;
    list.push_back(std::move(entry));
  }
  return {{"errors", std::move(list)}};
}

namespace problem {
namespace {

Problem make(ErrorCode code, std::string message) {
  Problem out;
  out.code = code;
  out.message = std::move(message);
  return out;
}

}  // namespace

Problem bad_request(std::string message) { return make(ErrorCode::kInvalidRequest, std::move(message)); }

Problem out_of_pages(std::string message) { return make(ErrorCode::kOutOfPages, std::move(message)); }

Problem invalid_fields(std::vector<FieldError> errors) {
  Problem out = bad_request("the body breaks one rule or more");
  out.errors = std::move(errors);
  return out;
}

Problem unauthorized() { return make(ErrorCode::kUnauthorized, "unauthorized"); }

Problem not_found() {
  return make(ErrorCode::kNotFound, "no such path; there are GET /health, POST /execute and POST /cancel");
}

Problem method_not_allowed(std::string allow) {
  Problem out = make(ErrorCode::kMethodNotAllowed, fmt::format("this path is for {}", allow));
  out.allow = std::move(allow);
  return out;
}

Problem conflict(std::string message) { return make(ErrorCode::kJobExists, std::move(message)); }

Problem payload_too_large(size_t limit_bytes) {
  Problem out = make(ErrorCode::kPayloadTooLarge, fmt::format("a body is {} bytes at most", limit_bytes));
  out.must_close = true;
  return out;
}

Problem header_too_large(size_t limit_bytes) {
  Problem out = make(ErrorCode::kHeaderTooLarge, fmt::format("the headers are {} bytes at most", limit_bytes));
  out.must_close = true;
  return out;
}

Problem unsupported_media_type() {
  return make(ErrorCode::kUnsupportedMediaType, "the body must be sent as Content-Type: application/json");
}

Problem internal() { return make(ErrorCode::kInternal, "the worker failed to answer; its log says why"); }

Problem unavailable(ErrorCode code, std::string message, unsigned retry_after_s) {
  Problem out = make(code, std::move(message));
  out.retry_after_s = retry_after_s;
  return out;
}

}  // namespace problem
}  // namespace llorch
