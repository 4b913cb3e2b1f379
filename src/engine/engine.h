// The engine: many requests at once through one program, on one thread of its own.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>

#include "backend/backend.h"
#include "engine/request.h"

namespace llorch {

struct EngineOptions {
  uint32_t context = 0;             // positions of one sequence (Plan::context(), or less)
  uint32_t vocab = 0;               // Plan::vocab
  KvShape kv;                       // as the program was compiled
  uint32_t max_step_rows = 512;     // rows of one step: at most CompileOptions::max_rows
  uint32_t max_prefill_rows = 512;  // prefill rows of one step; bounds how long decodes and cancels wait
  uint32_t max_running = 64;        // sequences of one step: at most CompileOptions::max_logit_rows and max_step_rows
  uint32_t unhealthy_after = 3;     // failed steps in a row
  // Tests only, the seed's bug: a new sequence believes that the positions of the last one that ended are its own.
  bool fault_keep_positions = false;
};

struct EngineStats {
  uint32_t running = 0;  // sequences that own pages
  uint32_t waiting = 0;  // submitted and not running: in the inbox, queued, or preempted
  uint32_t kv_pages_free = 0;
  uint32_t kv_pages_total = 0;
  uint64_t steps = 0;
  uint64_t tokens_generated = 0;
  uint64_t tokens_prefilled = 0;
  uint64_t preemptions = 0;
  double tokens_per_sec = 0;  // generated, over about the last second; 0 when idle
  bool healthy = true;        // false after unhealthy_after failed steps in a row, until one succeeds
};

// A sequence's tokens depend on its request alone: not on what else runs, how its prefill is chunked, or whether it was
// preempted.
class Engine {
 public:
  Engine(std::unique_ptr<Program> program, const EngineOptions& options);
  ~Engine();  // stop()
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  // Why the request can never be served, or nothing. Any thread; does not look at the load.
  std::optional<Refusal> refusal(const Request& request) const;

  // Any thread; returns at once. Every outcome, a refusal too, arrives in the sink, perhaps before this returns. After
  // stop() there is no engine thread any more: the sink is called here, with SHUTTING_DOWN.
  RequestId submit(Request request, EventSink sink);

  // Any thread; returns at once. Acts before the next step; unknown and ended ids are ignored.
  void cancel(RequestId id);

  // Runs a short prompt and a decode step as a sequence like any other; returns milliseconds. Blocks; throws Error if
  // the sequence fails. Not from a sink.
  double warm_up();

  // Refuses new requests and waits until all others ended; false if the deadline came first (they go on). Not from a
  // sink.
  bool drain(std::chrono::steady_clock::time_point deadline);

  // Cancels everything and joins the engine thread. Idempotent; not from a sink.
  void stop();

  // Any thread; never blocks. The fields are each current, not one snapshot.
  EngineStats stats() const;
};

}  // namespace llorch
