// The three routes of the contract.
#include "server/routes.h"

#include <fmt/format.h>

#include <boost/beast/core/string.hpp>
#include <cmath>

#include "base/error.h"
#include "server/auth.h"
#include "server/strict_json.h"

namespace llorch {
namespace {

// "application/json", with parameters or without.
bool is_json(std::string_view content_type) {
  constexpr std::string_view kJson = "application/json";
  std::string_view type = content_type.substr(0, content_type.find(';'));
  while (!type.empty() && (type.back() == ' ' || type.back() == '\t')) type.remove_suffix(1);
  return boost::beast::iequals({type.data(), type.size()}, {kJson.data(), kJson.size()});
}

// Room for prompt and answer in one context.
std::optional<FieldError> check_context(size_t prompt_tokens, uint32_t max_tokens, uint32_t context) {
  if (prompt_tokens + max_tokens <= context) return std::nullopt;
  return FieldError{"max_tokens", fmt::format("context({})", context),
                    fmt::format("the prompt is {} tokens and max_tokens is {}: {} together, but the context is {}",
                                prompt_tokens, max_tokens, prompt_tokens + max_tokens, context),
                    max_tokens};
}

std::optional<FieldError> check_record(bool asked, bool records) {
  if (!asked || records) return std::nullopt;
  return FieldError{"record", "recorder", "this worker has no flight recorder", true};
}

}  // namespace

std::variant<Route, Problem> find_route(const RequestHead& head, std::string_view token) {
  const std::string_view path = head.path.substr(0, head.path.find('?'));
  if (path == "/health") {
    if (head.method != "GET") return problem::method_not_allowed("GET");
    return Route::kHealth;
  }
  if (path != "/execute" && path != "/cancel") return problem::not_found();
  if (head.method != "POST") return problem::method_not_allowed("POST");
  if (!is_authorized(head.authorization, token)) return problem::unauthorized();
  if (!is_json(head.content_type)) return problem::unsupported_media_type();
  return path == "/execute" ? Route::kExecute : Route::kCancel;
}

std::optional<ErrorCode> Service::unhealthy() const {
  const EngineStats stats = engine.stats();
  if (const auto broken = engine.broken()) return broken->code;
  if (draining) return ErrorCode::kShuttingDown;
  if (stats.step_ms > static_cast<double>(options.stall_timeout.count())) return ErrorCode::kStepHangs;
  if (!stats.healthy) return ErrorCode::kStepsFail;
  return std::nullopt;
}

nlohmann::json health(const Service& service) {
  const EngineStats stats = service.engine.stats();
  const ServedModel& model = service.model;
  const std::optional<ErrorCode> unhealthy = service.unhealthy();
  return {{"status", unhealthy ? "unhealthy" : "healthy"},
          {"reason", unhealthy ? nlohmann::json(to_string(*unhealthy)) : nlohmann::json()},
          {"step_ms", std::llround(stats.step_ms)},
          {"vram_bytes", model.vram_bytes},
          {"backend", model.backend},
          {"device", model.device},
          {"model", model.name},
          {"numerics", model.numerics},
          {"version", model.version},
          {"kv_pages_free", stats.kv_pages_free},
          {"kv_pages_total", stats.kv_pages_total},
          {"running", stats.running},
          {"waiting", stats.waiting}};
}

std::variant<nlohmann::json, Problem> cancel(Service& service, std::string_view body) {
  try {
    auto read = read_cancel_request(parse_strict_json(body));
    if (auto* errors = std::get_if<1>(&read)) return problem::invalid_fields(std::move(*errors));
    const std::string& job_id = std::get<0>(read);
    service.jobs.cancel(job_id);
    return nlohmann::json{{"job_id", job_id}};
  } catch (const Error& error) {
    return problem::bad_request(error.what());
  }
}

std::variant<PreparedJob, Problem> prepare_job(const Service& service, std::string_view body) {
  if (service.draining) return problem::unavailable(ErrorCode::kShuttingDown, "the worker is shutting down", 5);
  PreparedJob job;
  try {
    auto read = read_execute_request(parse_strict_json(body));
    if (auto* errors = std::get_if<1>(&read)) return problem::invalid_fields(std::move(*errors));
    job.request = std::move(std::get<0>(read));
  } catch (const Error& error) {
    return problem::bad_request(error.what());
  }
  if (auto error = check_record(job.request.record, service.options.records)) return problem::invalid_fields({*error});
  if (service.jobs.contains(job.request.job_id)) {
    return problem::conflict("a job with this job_id is running; cancel it, or wait for its end");
  }
  if (service.jobs.waiting() >= service.options.max_waiting) {
    return problem::unavailable(
        ErrorCode::kQueueFull,
        fmt::format("{} requests are waiting already, which is the limit", service.options.max_waiting), 1);
  }
  Request& request = job.engine_request;
  request.tokens = service.tokenizer->encode(job.request.prompt, true);
  request.sampling = job.request.sampling;
  request.max_tokens = job.request.max_tokens;
  if (!job.request.ignore_eos) request.eos = service.model.eos;
  request.record = job.request.record;
  if (auto error = check_context(request.tokens.size(), request.max_tokens, service.model.context)) {
    return problem::invalid_fields({*error});
  }
  if (auto refusal = service.engine.refusal(request)) {
    if (refusal->code == ErrorCode::kOutOfPages) return problem::out_of_pages(refusal->message);
    return problem::bad_request(refusal->message);
  }
  if (service.options.request_timeout) {
    request.deadline = std::chrono::steady_clock::now() + *service.options.request_timeout;
  }
  return job;
}

}  // namespace llorch
