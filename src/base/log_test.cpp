// The form of a log line.
#include "base/log.h"

#include <gtest/gtest.h>
#include <spdlog/sinks/ostream_sink.h>

#include <regex>
#include <sstream>

#include "base/error.h"

namespace llorch {
namespace {

TEST(Log, ALineIsOneJsonObjectInTheContractsForm) {
  std::ostringstream out;
  const Logger log(LogLevel::info, std::make_shared<spdlog::sinks::ostream_sink_mt>(out));
  log.info("HTTP server listening", {{"addr", "127.0.0.1:9876"}, {"workers", 2}});
  const std::string line = out.str();
  EXPECT_EQ(line.find('\n'), line.size() - 1);
  const auto json = nlohmann::json::parse(line);
  EXPECT_EQ(json["level"], "INFO");
  EXPECT_EQ(json["fields"],
            (nlohmann::json{{"message", "HTTP server listening"}, {"addr", "127.0.0.1:9876"}, {"workers", 2}}));
  EXPECT_TRUE(
      std::regex_match(json["timestamp"].get<std::string>(), std::regex(R"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z)")))
      << line;
  EXPECT_EQ(line.rfind("{\"timestamp\"", 0), 0u) << "the timestamp comes first";
}

TEST(Log, LinesBelowTheLevelAreDropped) {
  std::ostringstream out;
  const Logger log(LogLevel::warn, std::make_shared<spdlog::sinks::ostream_sink_mt>(out));
  log.debug("a");
  log.info("b");
  EXPECT_EQ(out.str(), "");
  log.error("c");
  EXPECT_NE(out.str().find("\"ERROR\""), std::string::npos);
}

TEST(Log, HostileTextStaysOneLine) {
  std::ostringstream out;
  const Logger log(LogLevel::info, std::make_shared<spdlog::sinks::ostream_sink_mt>(out));
  log.info("bad\n\xff{}%n", {{"job_id", "a\nb\x01\xc3"}});
  const std::string line = out.str();
  EXPECT_EQ(line.find('\n'), line.size() - 1);
  EXPECT_TRUE(nlohmann::json::accept(line));
}

TEST(Log, LevelsAreReadByName) {
  EXPECT_EQ(parse_log_level("debug"), LogLevel::debug);
  EXPECT_THROW(parse_log_level("loud"), Error);
}

}  // namespace
}  // namespace llorch
