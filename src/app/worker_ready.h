// A client's first questions to a worker: is it ready, and what lets me in.
#pragma once

#include <atomic>
#include <chrono>
#include <functional>
#include <string>

namespace llorch {

// Waits until the worker at this URL ("http://127.0.0.1:9876") is healthy. Throws Error if it is not within `timeout`,
// if `alive` says that it is gone, or if `stop` becomes true.
void wait_until_ready(const std::string& url, std::chrono::seconds timeout, const std::atomic<bool>& stop,
                      const std::function<bool()>& alive);

// LLORCH_API_TOKEN; empty if there is none.
std::string api_token_of_environment();

}  // namespace llorch
