// The body of POST /execute: its fields, their rules and defaults.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <variant>
#include <vector>

#include "engine/request.h"
#include "sampling/params.h"
#include "server/problem.h"

namespace llorch {

struct ExecuteRequest {
  std::string job_id;
  std::string prompt;
  uint32_t max_tokens = 0;
  SamplingParams sampling;
  std::vector<std::string> stop;
  bool ignore_eos = false;  // an EOS token is a token like any other
  bool record = false;      // how it went is to be kept, also if all goes well
};

// A request that may be submitted: checked, and with its prompt in tokens.
struct PreparedJob {
  ExecuteRequest request;
  Request engine_request;
};

inline constexpr size_t kMaxJobIdBytes = 256;

// The request, or every rule that the body breaks, in the order of the fields. Unknown fields are refused with the
// constraint `known_field`; wrong types with `type(...)`, absent fields with `required`.
std::variant<ExecuteRequest, std::vector<FieldError>> read_execute_request(const nlohmann::json& body);

// The job_id of POST /cancel, by the same rules.
std::variant<std::string, std::vector<FieldError>> read_cancel_request(const nlohmann::json& body);

}  // namespace llorch
