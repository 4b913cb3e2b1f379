// The story request of the contract, sent to a worker, and what comes back, printed as it streams.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <string>

namespace CLI {
class App;
}

namespace llorch {

struct StoryOptions {
  std::string prompt = "Once upon a time";
  uint32_t max_tokens = 50;
  double temperature = 0.7;
  uint64_t seed = 42;
  std::chrono::seconds ready_timeout{600};  // a large model on a slow disk
};

void add_story_options(CLI::App& command, StoryOptions& options);

// Waits until the worker on this port of 127.0.0.1 is healthy, posts the story, prints it to stdout under
// "Generated Story:", then tokens/s, time to first token and stop reason. Throws Error if the worker does not become
// ready (or `alive` says that it is gone), if `stop` becomes true, if the stream ends in an error, or if no token came:
// then with the raw response.
void tell_story(uint16_t port, const StoryOptions& options, const std::atomic<bool>& stop,
                const std::function<bool()>& alive);

}  // namespace llorch
