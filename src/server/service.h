// What every connection of a server shares.
#pragma once

#include <boost/asio/io_context.hpp>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/log.h"
#include "engine/engine.h"
#include "server/bell.h"
#include "server/jobs.h"
#include "text/tokenizer.h"

namespace llorch {

struct ServerOptions {
  std::string host = "127.0.0.1";
  uint16_t port = 9876;  // 0: a free one
  std::string token;     // LLORCH_API_TOKEN; empty: none
  uint32_t max_waiting = 256;
  uint32_t max_connections = 1024;
  std::optional<std::chrono::milliseconds> request_timeout;
  std::chrono::milliseconds drain_timeout{30000};
  std::chrono::milliseconds idle_timeout{60000};   // for a request's headers to arrive, from the last answer on
  std::chrono::milliseconds body_timeout{30000};   // for its body
  std::chrono::milliseconds write_timeout{60000};  // a reader that takes nothing for so long is dropped
  std::chrono::milliseconds metrics_interval{1000};
  std::chrono::milliseconds stall_timeout{60000};  // a step that runs longer hangs
  bool records = false;                            // a flight recorder is there: requests may ask for it
};

// The loaded model as clients see it.
struct ServedModel {
  std::string name;
  std::string backend;      // "cpu"
  std::string device;       // "AMD EPYC 9654 (avx512vnni, 2 threads)"
  std::string numerics;     // "exact"
  std::string version;      // of llorch
  uint64_t vram_bytes = 0;  // weights, KV pages and activations on the device
  uint32_t context = 0;     // positions of one sequence
  std::vector<int32_t> eos;
};

struct Service {
  // Why the worker is unhealthy: kDeviceLost, kWorkerFault, kShuttingDown, kStepHangs or kStepsFail; nothing if it is
  // not. Does not wait for a step.
  std::optional<ErrorCode> unhealthy() const;

  const ServerOptions& options;
  const ServedModel& model;
  std::shared_ptr<const Tokenizer> tokenizer;
  Engine& engine;
  const Logger& log;
  boost::asio::io_context& io;
  Bell bell;
  Jobs jobs;
  bool draining = false;  // no new jobs
  bool closing = false;   // no new requests either: each connection ends after its answer
};

}  // namespace llorch
