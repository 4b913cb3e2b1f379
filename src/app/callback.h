// Tells a supervisor that the worker is ready.
#pragma once

#include <atomic>
#include <cstdint>
#include <string>
#include <thread>

#include "base/log.h"

namespace llorch {

struct CallbackBody {
  std::string worker_id;
  uint64_t vram_bytes = 0;
  std::string uri;  // "http://127.0.0.1:9876"
  std::string model, backend;
};

// POSTs the body as JSON from a thread of its own, five times at most, with growing pauses; what comes of it is logged.
// Nothing is sent to an empty URL, nor to one that contains "localhost:9999" (a test's).
class Callback {
 public:
  Callback(std::string url, const CallbackBody& body, const Logger& log);
  ~Callback();  // gives up and joins
  Callback(const Callback&) = delete;
  Callback& operator=(const Callback&) = delete;

 private:
  void send(const std::string& url, const std::string& json);

  const Logger& log_;
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

}  // namespace llorch
