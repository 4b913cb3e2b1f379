// The program's log: one JSON object a line, {"timestamp", "level", "fields": {"message", ...}}.
#pragma once

#include <spdlog/logger.h>

#include <memory>
#include <nlohmann/json.hpp>
#include <string_view>

namespace llorch {

using LogLevel = spdlog::level::level_enum;

// Passed down by reference to whoever logs; there is no global one. Thread-safe. Every line is flushed, so that a
// supervisor that waits for one sees it at once; a reader that stops reading stops the thread that logs.
class Logger {
 public:
  using Fields = nlohmann::ordered_json;  // an object: {{"name", value}, ...}

  Logger(LogLevel level, spdlog::sink_ptr sink);
  static Logger to_stdout(LogLevel level);
  static Logger to_nowhere();

  void debug(std::string_view message, const Fields& fields = {}) const { write(LogLevel::debug, message, fields); }
  void info(std::string_view message, const Fields& fields = {}) const { write(LogLevel::info, message, fields); }
  void warn(std::string_view message, const Fields& fields = {}) const { write(LogLevel::warn, message, fields); }
  void error(std::string_view message, const Fields& fields = {}) const { write(LogLevel::err, message, fields); }

 private:
  void write(LogLevel level, std::string_view message, const Fields& fields) const;

  std::shared_ptr<spdlog::logger> out_;
};

// "trace", "debug", "info", "warn", "error" or "off"; throws Error naming what there is.
LogLevel parse_log_level(std::string_view name);

}  // namespace llorch
