// Bounded retries: 5 tries, pauses of 0.5, 1, 2 and 4 seconds.
#include "app/callback.h"

#include <chrono>
#include <nlohmann/json.hpp>

#include "app/http_client.h"
#include "base/error.h"

namespace llorch {
namespace {

constexpr int kTries = 5;
constexpr std::chrono::milliseconds kFirstPause{500};
constexpr std::chrono::seconds kTimeout{5};

}  // namespace

Callback::Callback(std::string url, const CallbackBody& body, const Logger& log) : log_(log) {
  if (url.empty()) return;
  if (url.find("localhost:9999") != std::string::npos) {
    log_.info("callback skipped: test mode", {{"url", url}});
    return;
  }
  const std::string json = nlohmann::json{
      {"worker_id", body.worker_id},
      {"vram_bytes", body.vram_bytes},
      {"uri", body.uri},
      {"model", body.model},
      {"backend",
       body.backend}}.dump();
  thread_ = std::thread([this, url = std::move(url), json] { send(url, json); });
}

Callback::~Callback() {
  stop_ = true;
  if (thread_.joinable()) thread_.join();
}

void Callback::send(const std::string& url, const std::string& json) {
  std::chrono::milliseconds pause = kFirstPause;
  for (int attempt = 1; !stop_; ++attempt) {
    std::string problem;
    try {
      HttpRequest request;
      request.url = url;
      request.json = json;
      request.timeout = kTimeout;
      request.stop = &stop_;
      const HttpAnswer answer = send_http(request);
      if (answer.status / 100 == 2) return log_.info("callback delivered", {{"url", url}, {"attempt", attempt}});
      problem = fmt::format("HTTP {}", answer.status);
    } catch (const Error& error) {
      problem = error.what();
    }
    log_.warn("callback failed", {{"url", url}, {"attempt", attempt}, {"error", problem}});
    if (attempt == kTries) return;
    for (auto waited = std::chrono::milliseconds(0); waited < pause && !stop_; waited += kFirstPause / 10) {
      std::this_thread::sleep_for(kFirstPause / 10);
    }
    pause *= 2;
  }
}

}  // namespace llorch
