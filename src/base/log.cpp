// JSON lines through spdlog, which brings the levels, the locks and the sinks.
#include "base/log.h"

#include <fmt/chrono.h>
#include <spdlog/sinks/null_sink.h>
#include <spdlog/sinks/stdout_sinks.h>

#include <chrono>
#include <string>

#include "base/error.h"

namespace llorch {
namespace {

// RFC 3339, UTC, microseconds.
std::string timestamp() {
  const auto now = std::chrono::system_clock::now();
  const auto seconds = std::chrono::floor<std::chrono::seconds>(now);
  const auto micros = std::chrono::duration_cast<std::chrono::microseconds>(now - seconds).count();
  return fmt::format("{:%Y-%m-%dT%H:%M:%S}.{:06}Z", fmt::gmtime(std::chrono::system_clock::to_time_t(now)), micros);
}

const char* level_name(LogLevel level) {
  switch (level) {
    case LogLevel::trace:
      return "TRACE";
    case LogLevel::debug:
      return "DEBUG";
    case LogLevel::info:
      return "INFO";
    case LogLevel::warn:
      return "WARN";
    case LogLevel::err:
    case LogLevel::critical:
      return "ERROR";
    case LogLevel::off:
    case LogLevel::n_levels:
      break;
  }
  return "OFF";
}

}  // namespace

Logger::Logger(LogLevel level, spdlog::sink_ptr sink)
    : out_(std::make_shared<spdlog::logger>("llorch", std::move(sink))) {
  out_->set_level(level);
  out_->set_pattern("%v");
  out_->flush_on(LogLevel::trace);
}

Logger Logger::to_stdout(LogLevel level) { return {level, std::make_shared<spdlog::sinks::stdout_sink_mt>()}; }

Logger Logger::to_nowhere() { return {LogLevel::off, std::make_shared<spdlog::sinks::null_sink_mt>()}; }

void Logger::write(LogLevel level, std::string_view message, const Fields& fields) const {
  if (!out_->should_log(level)) return;
  nlohmann::ordered_json line;
  line["timestamp"] = timestamp();
  line["level"] = level_name(level);
  auto& out = line["fields"];
  out["message"] = message;
  for (const auto& [name, value] : fields.items()) out[name] = value;
  // Invalid UTF-8 (a path, a message of the system) must not throw here.
  const std::string text = line.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
  out_->log(level, spdlog::string_view_t(text.data(), text.size()));
}

LogLevel parse_log_level(std::string_view name) {
  if (name == "trace") return LogLevel::trace;
  if (name == "debug") return LogLevel::debug;
  if (name == "info") return LogLevel::info;
  if (name == "warn") return LogLevel::warn;
  if (name == "error") return LogLevel::err;
  if (name == "off") return LogLevel::off;
  fail("log level: expected trace, debug, info, warn, error or off, got \"{}\"", name);
}

}  // namespace llorch
