// Ready, ask, print, account.
#include "app/story_client.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <thread>

#include "app/http_client.h"
#include "app/sse_reader.h"
#include "base/error.h"

namespace llorch {
namespace {

using Clock = std::chrono::steady_clock;
using nlohmann::json;

double seconds_since(Clock::time_point begin) { return std::chrono::duration<double>(Clock::now() - begin).count(); }

std::string token_of_environment() {
  const char* token = std::getenv("LLORCH_API_TOKEN");
  return token != nullptr ? token : "";
}

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

void wait_until_ready(const std::string& url, const StoryOptions& options, const std::atomic<bool>& stop,
                      const std::function<bool()>& alive) {
  const auto begin = Clock::now();
  while (true) {
    const std::string reason = not_ready(url, stop);
    if (stop) fail("interrupted");
    if (reason.empty()) return;
    if (!alive()) fail("the worker ended before it was ready");
    if (Clock::now() - begin > options.ready_timeout) {
      fail("the worker was not ready within {} s: {}", options.ready_timeout.count(), reason);
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
}

// What one stream has brought so far.
struct Story {
  uint32_t tokens = 0;
  double first_token_s = 0, last_token_s = 0;
  std::string stop_reason, error;
  std::string raw;

  void take(const json& event, Clock::time_point begin) {
    const std::string type = event.value("type", "");
    if (type == "token") {
      last_token_s = seconds_since(begin);
      if (tokens++ == 0) first_token_s = last_token_s;
      const std::string text = event.value("t", "");
      std::fwrite(text.data(), 1, text.size(), stdout);
      std::fflush(stdout);
    } else if (type == "end") {
      stop_reason = event.value("stop_reason", "");
      tokens = event.value("tokens_out", tokens);
    } else if (type == "error") {
      error = fmt::format("{}: {}", event.value("code", ""), event.value("message", ""));
    }
  }
};

}  // namespace

void add_story_options(CLI::App& command, StoryOptions& options) {
  command.add_option("--prompt", options.prompt, "How the story begins")->capture_default_str();
  command.add_option("--max-tokens", options.max_tokens, "Tokens at most")->capture_default_str();
  command.add_option("--temperature", options.temperature, "0: greedy")->capture_default_str();
  command.add_option("--seed", options.seed, "Seed")->capture_default_str();
}

void tell_story(uint16_t port, const StoryOptions& options, const std::atomic<bool>& stop,
                const std::function<bool()>& alive) {
  const std::string url = fmt::format("http://127.0.0.1:{}", port);
  wait_until_ready(url, options, stop, alive);

  const auto begin = Clock::now();
  Story story;
  SseReader reader([&](const json& event) {
    if (story.tokens == 0 && event.value("type", "") == "token") fmt::print("Generated Story:\n{}", options.prompt);
    story.take(event, begin);
  });
  HttpRequest request;
  request.url = url + "/execute";
  request.json = json{
      {"job_id", "test-story"},
      {"prompt", options.prompt},
      {"max_tokens", options.max_tokens},
      {"temperature", options.temperature},
      {"seed",
       options.seed}}.dump();
  request.bearer_token = token_of_environment();
  request.stop = &stop;
  request.on_body = [&](std::string_view bytes) {
    if (story.tokens == 0) story.raw += bytes;
    reader.push(bytes);
  };
  HttpAnswer answer;
  try {
    answer = send_http(request);
  } catch (const Error&) {
    if (story.tokens > 0) fmt::print("\n");
    if (stop) fail("interrupted");
    throw;
  }
  if (story.tokens == 0) {
    fail("no tokens came. The worker's raw response, HTTP {}:\n{}", answer.status, answer.body + story.raw);
  }
  fmt::print("\n\n");
  if (story.stop_reason.empty()) {
    fail("the stream broke off after {} tokens: {}", story.tokens, story.error.empty() ? "no end event" : story.error);
  }
  const double decode_s = story.last_token_s - story.first_token_s;
  fmt::print("{} tokens, {:.1f} tokens/s, time to first token {:.1f} ms, stop reason {}\n", story.tokens,
             decode_s > 0 ? (story.tokens - 1) / decode_s : 0.0, story.first_token_s * 1e3, story.stop_reason);
  std::fflush(stdout);
}

}  // namespace llorch
