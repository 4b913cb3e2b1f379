// Statuses, codes and texts of refused requests.
#include "server/problem.h"

#include <fmt/format.h>

#include <utility>

namespace llorch {

nlohmann::json Problem::body() const {
  if (errors.empty()) return {{"code", code}, {"message", message}, {"retriable", retriable}};
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

Problem make(unsigned status, std::string code, std::string message) {
  Problem out;
  out.status = status;
  out.code = std::move(code);
  out.message = std::move(message);
  return out;
}

}  // namespace

Problem bad_request(std::string message) { return make(400, "INVALID_REQUEST", std::move(message)); }

Problem invalid_fields(std::vector<FieldError> errors) {
  Problem out = bad_request("the body breaks one rule or more");
  out.errors = std::move(errors);
  return out;
}

Problem unauthorized() { return make(401, "UNAUTHORIZED", "unauthorized"); }

Problem not_found() {
  return make(404, "NOT_FOUND", "no such path; there are GET /health, POST /execute and POST /cancel");
}

Problem method_not_allowed(std::string allow) {
  Problem out = make(405, "METHOD_NOT_ALLOWED", fmt::format("this path is for {}", allow));
  out.allow = std::move(allow);
  return out;
}

Problem conflict(std::string message) { return make(409, "JOB_EXISTS", std::move(message)); }

Problem payload_too_large(size_t limit_bytes) {
  Problem out = make(413, "PAYLOAD_TOO_LARGE", fmt::format("a body is {} bytes at most", limit_bytes));
  out.must_close = true;
  return out;
}

Problem header_too_large(size_t limit_bytes) {
  Problem out = make(431, "HEADER_TOO_LARGE", fmt::format("the headers are {} bytes at most", limit_bytes));
  out.must_close = true;
  return out;
}

Problem unsupported_media_type() {
  return make(415, "UNSUPPORTED_MEDIA_TYPE", "the body must be sent as Content-Type: application/json");
}

Problem internal() { return make(500, "INTERNAL", "the worker failed to answer; its log says why"); }

Problem unavailable(std::string code, std::string message, unsigned retry_after_s) {
  Problem out = make(503, std::move(code), std::move(message));
  out.retriable = true;
  out.retry_after_s = retry_after_s;
  return out;
}

}  // namespace problem
}  // namespace llorch
