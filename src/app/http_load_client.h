// Many clients of one worker at once, on one thread.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

#include "app/http_load_answer.h"

namespace llorch {

struct LoadTarget {
  std::string host;
  uint16_t port = 0;
  std::string bearer_token;                  // empty: none
  std::chrono::milliseconds silence{60000};  // a worker that sends nothing for so long has failed
};

// "http://127.0.0.1:9876", without a path; the port may be absent. Throws InputError.
LoadTarget parse_load_url(const std::string& url);

struct LoadRun {
  std::vector<LoadAnswer> answers;  // of the requests, in their order; those after an error may be missing at the end
  double seconds = 0.0;             // from the first request to the end of the last answer
};

// Sends all requests with `clients` of them in flight at any time: each client has one connection that it keeps, and
// asks for the next request when it has its answer. A request that fails is in the answers; no new ones begin then.
// Throws Error if `stop` becomes true.
LoadRun run_load(const LoadTarget& target, const std::vector<LoadRequest>& requests, uint32_t clients,
                 const std::atomic<bool>& stop);

}  // namespace llorch
