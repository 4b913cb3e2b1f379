// Ready, ask, print, account.
#include "app/story_client.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "app/http_client.h"
#include "app/sse_reader.h"
#include "app/worker_ready.h"
#include "base/error.h"

namespace llorch {
namespace {

using Clock = std::chrono::steady_clock;
using nlohmann::json;

double seconds_since(Clock::time_point begin) { return std::chrono::duration<double>(Clock::now() - begin).count(); }

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
  wait_until_ready(url, options.ready_timeout, stop, alive);

  const auto begin = Clock::now();
  Story story;
  SseReader reader([&](std::string_view data) {
    const json event = parse_event(data);
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
  request.bearer_token = api_token_of_environment();
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
