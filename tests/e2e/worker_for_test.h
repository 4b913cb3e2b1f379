// Workers of the tiny model as subprocesses, for tests.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "app/worker_process.h"
#include "base/error.h"
#include "server/client_for_test.h"

namespace llorch {

inline constexpr const char* kTinyModel = LLORCH_SOURCE_DIR "/tests/fixtures/tiny-llama";

inline bool soon(const std::function<bool()>& condition) {
  for (int i = 0; i < 2000; ++i) {
    if (condition()) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  return false;
}

// `llorch serve --port 0`, the tiny model unless flags name another, and more flags. Some tests need a worker that is
// slow: --backend reference.
class Worker : public WorkerProcess {
 public:
  explicit Worker(std::vector<std::string> flags = {}) : WorkerProcess(LLORCH_EXECUTABLE, with_defaults(flags)) {}

  // Of the listener; fails if the worker ends before.
  uint16_t http() {
    if (!soon([this] { return port().has_value() || !alive(); }) || !port()) fail("no listener:\n{}", last_log_lines());
    return *port();
  }
  nlohmann::json health() { return ask(http(), "GET", "/health").json(); }

  // Nothing runs and every page is back.
  bool idle() {
    const nlohmann::json now = health();
    return now["running"] == 0 && now["waiting"] == 0 && now["kv_pages_free"] == now["kv_pages_total"];
  }

 private:
  static std::vector<std::string> with_defaults(std::vector<std::string> flags) {
    flags.insert(flags.begin(), {"--port", "0", "--threads", "2"});
    if (std::find(flags.begin(), flags.end(), "--model") == flags.end())
      flags.insert(flags.end(), {"--model", kTinyModel});
    return flags;
  }
};

inline nlohmann::json job(const std::string& job_id, uint32_t max_tokens,
                          const std::string& prompt = "Once upon a time") {
  return {{"job_id", job_id}, {"prompt", prompt}, {"max_tokens", max_tokens}};
}

inline std::vector<std::string> types_of(const std::vector<nlohmann::json>& events) {
  std::vector<std::string> out;
  for (const auto& event : events) out.push_back(event["type"]);
  return out;
}

}  // namespace llorch
