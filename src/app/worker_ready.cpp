// GET /health, again and again.
#include "app/worker_ready.h"

#include <fmt/format.h>

#include <cstdlib>
#include <nlohmann/json.hpp>
#include <thread>

#include "app/http_client.h"
#include "base/error.h"

namespace llorch {
namespace {

using nlohmann::json;

// Empty when the worker is healthy, else why it is not.
std::string not_ready(const std::string& url, const std::atomic<bool>& stop) {
  HttpRequest request;
  request.url = url + "/health";
  request.timeout = std::chrono::seconds(5);
  request.stop = &stop;
  try {
    const HttpAnswer answer = send_http(request);
    const json health = json::parse(answer.body, nullptr, false);
    const bool healthy = answer.status == 200 && health.is_object() && health.value("status", "") == "healthy";
    return healthy ? "" : fmt::format("HTTP {}: {}", answer.status, answer.body);
  } catch (const Error& error) {
    return error.what();
  }
}

}  // namespace

void wait_until_ready(const std::string& url, std::chrono::seconds timeout, const std::atomic<bool>& stop,
                      const std::function<bool()>& alive) {
  const auto begin = std::chrono::steady_clock::now();
  while (true) {
    const std::string reason = not_ready(url, stop);
    if (stop) fail("interrupted");
    if (reason.empty()) return;
    if (!alive()) fail("the worker ended before it was ready");
    if (std::chrono::steady_clock::now() - begin > timeout) {
      fail("the worker was not ready within {} s: {}", timeout.count(), reason);
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
}

std::string api_token_of_environment() {
  const char* token = std::getenv("LLORCH_API_TOKEN");
  return token != nullptr ? token : "";
}

}  // namespace llorch
