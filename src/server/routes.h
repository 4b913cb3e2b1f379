// What the worker answers, apart from how it is sent: plain functions from requests to bodies.
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <variant>

#include "server/execute_request.h"
#include "server/problem.h"
#include "server/service.h"

namespace llorch {

enum class Route { kHealth, kExecute, kCancel };

// What the headers alone decide. Views into the request.
struct RequestHead {
  std::string_view method, path, content_type, authorization;
};

// The route, or why there is none: 404, 405, 401, 415, in this order.
std::variant<Route, Problem> find_route(const RequestHead& head, std::string_view token);

// GET /health. Reads counters only.
nlohmann::json health(const Service& service);

// POST /cancel: the body of the 202. Cancels the job if it runs.
std::variant<nlohmann::json, Problem> cancel(Service& service, std::string_view body);

// POST /execute up to the point where the job could be submitted.
std::variant<PreparedJob, Problem> prepare_job(const Service& service, std::string_view body);

}  // namespace llorch
