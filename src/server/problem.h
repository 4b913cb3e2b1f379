// What a refused HTTP request is answered with: a status and a JSON body.
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "base/error_code.h"

namespace llorch {

// One violated rule of a body. `value` is what was sent, if it is a number, a boolean or null; text is never sent back.
struct FieldError {
  std::string field;
  std::string constraint;  // "range(1..=2048)"
  std::string message;
  std::optional<nlohmann::json> value;
};

// {"code","message","retriable"}, or {"errors":[...]} when there are field errors.
struct Problem {
  ErrorCode code = ErrorCode::kInternal;  // gives the status too
  std::string message;
  std::vector<FieldError> errors;
  std::string allow;           // 405: the header Allow
  unsigned retry_after_s = 0;  // 503: the header Retry-After
  bool must_close = false;     // the rest of the request cannot be read, or should not

  unsigned status() const { return info(code).http; }
  nlohmann::json body() const;
};

// The refusals, each in one place. Messages are complete sentences without anything of the request's text.
namespace problem {
Problem bad_request(std::string message);
Problem out_of_pages(std::string message);
Problem invalid_fields(std::vector<FieldError> errors);
Problem unauthorized();
Problem not_found();
Problem method_not_allowed(std::string allow);
Problem conflict(std::string message);
Problem payload_too_large(size_t limit_bytes);
Problem header_too_large(size_t limit_bytes);
Problem unsupported_media_type();
Problem internal();
Problem unavailable(ErrorCode code, std::string message, unsigned retry_after_s);
}  // namespace problem

}  // namespace llorch
