// HTTP as a client, through libcurl.
#pragma once

#include <atomic>
#include <chrono>
#include <functional>
#include <string>
#include <string_view>

namespace llorch {

struct HttpAnswer {
  long status = 0;
  std::string body;  // empty if on_body took it
};

struct HttpRequest {
  std::string url;
  std::string json;                                    // the body of a POST; empty: GET
  std::string bearer_token;                            // empty: none
  std::chrono::milliseconds timeout{0};                // 0: none
  std::function<void(std::string_view)> on_body = {};  // gets a 2xx body as it arrives
  const std::atomic<bool>* stop = nullptr;             // becomes true: the transfer is aborted
};

// Throws Error if there is no complete answer; any status is an answer.
HttpAnswer send_http(const HttpRequest& request);

}  // namespace llorch
