// The engine: many requests at once through one program, on one thread of its own.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "backend/backend.h"
#include "engine/outbox.h"
#include "engine/record.h"
#include "engine/request.h"
#include "engine/scheduler.h"
#include "engine/token_rate.h"

namespace llorch {

// Limits are cut down to what the program was compiled for.
struct EngineOptions {
  uint32_t context = 0;             // positions of one sequence; 0: the plan's
  uint32_t max_step_rows = 512;     // rows of one step
  uint32_t max_prefill_rows = 512;  // prefill rows of one step; bounds how long decodes and cancels wait
  uint32_t max_running = 64;        // sequences that own pages
  uint32_t unhealthy_after = 3;     // failed steps in a row
  // Hears of every sequence that has begun and ends with a failure other than kCancelled and kTimeout, and of those
  // whose request asks for it.
  RecordSink on_record = {};
  std::string device = {};  // what the program runs on, for error events
  // Tests only, the seed's bug: a new sequence believes that the positions of the last one that ended are its own.
  bool fault_keep_positions = false;
};

struct EngineStats {
  uint32_t running = 0;  // sequences that own pages
  uint32_t waiting = 0;  // submitted and not running: in the inbox, queued, or preempted
  uint32_t kv_pages_free = 0;
  uint32_t kv_pages_total = 0;
  uint64_t steps = 0;
  uint64_t rows = 0;  // of all steps: prefill, decode and recomputed ones
  uint64_t tokens_generated = 0;
  uint64_t preemptions = 0;
  double tokens_per_sec = 0;  // generated, over about the last second; 0 when idle
  double step_ms = 0;         // how long the step that runs now has run; 0 when none does
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
  // stop() there is no engine thread any more: the sink is called here, with kShuttingDown.
  RequestId submit(Request request, EventSink sink);

  // Any thread; returns at once. Acts before the next step that has not been started; unknown and ended ids are
  // ignored.
  void cancel(RequestId id);

  // Runs a short prompt and a decode step as a sequence like any other; returns milliseconds. Blocks; throws
  // RequestError (engine/request_failure.h) if the sequence fails. Not from a sink.
  double warm_up();

  // Refuses new requests and waits until all others ended; false if the deadline came first (they go on). Not from a
  // sink.
  bool drain(std::chrono::steady_clock::time_point deadline);

  // Cancels everything and joins the engine thread. Idempotent; not from a sink.
  void stop();

  // Any thread; never blocks. The fields are each current, not one snapshot.
  EngineStats stats() const;

  // Any thread. What every request ends with from now on, if nothing can be served any more: the device is lost
  // (kDeviceLost), or a bug has left the engine in an unknown state (kWorkerFault). The process should be started anew.
  std::optional<FailEvent> broken() const;

 private:
  using Clock = std::chrono::steady_clock;

  // What other threads hand to the engine thread.
  struct Submitted {
    std::unique_ptr<Sequence> sequence;
    std::optional<Refusal> refusal;
  };
  struct Inbox {
    std::vector<Submitted> submitted;
    std::vector<RequestId> cancelled;
    bool empty() const { return submitted.empty() && cancelled.empty(); }
  };

  // A step that the program computes. Of a sequence that has ended meanwhile nullptr is left.
  struct Flight {
    ScheduledBatch step;
    std::vector<RowSampling> samplings;  // of the rows that want logits
    std::vector<Sequence*> sampled;      // the same
    Clock::time_point began;
    std::optional<FailEvent> failed;  // it could not be started
  };

  void loop();
  bool take_inbox();
  void end_expired();
  bool may_start() const;
  bool start_step();
  void finish_step();
  void land(const Flight& flight, const std::optional<FailEvent>& failed);
  void take(Sequence& sequence, const SampledRow& row);
  void forget(Sequence& sequence);
  void fail_step(const ScheduledBatch& step, FailEvent event);
  void break_down(FailEvent failed);
  void cancel_now(Sequence& sequence);
  void finish(Sequence& sequence, FinishReason reason);
  void end_failed(Sequence& sequence, FailEvent event);
  void end(Sequence& sequence, const Event& event);
  void deliver();
  void record(const Sequence& sequence, const Event& event) const noexcept;
  void publish();

  const std::unique_ptr<Program> program_;
  const uint32_t context_, unhealthy_after_;
  const RecordSink on_record_;
  const std::string device_;
  const Clock::time_point made_at_ = Clock::now();

  // Engine thread only.
  Scheduler scheduler_;
  TokenRate rate_;
  StepLog step_log_;
  std::deque<Flight> flights_;   // oldest first
  Clock::time_point landed_at_;  // the last of them that ended
  Outbox outbox_;
  uint32_t failed_steps_ = 0;        // in a row
  std::optional<FailEvent> broken_;  // see broken(); others read it under the mutex

  mutable std::mutex mutex_;  // guards inbox_, the flags below, and that broken_ is written
  std::condition_variable wake_, idle_;
  Inbox inbox_;
  bool is_idle_ = true;  // the engine thread waits, or has ended
  bool draining_ = false, stopping_ = false;
  bool stopped_ = false;  // nobody takes the inbox any more
  std::once_flag joined_;

  std::atomic<RequestId> last_id_{0};
  std::atomic<uint32_t> n_alive_{0};  // submitted and not ended
  struct {
    std::atomic<uint32_t> running{0}, pages_free{0};
    std::atomic<uint64_t> steps{0}, rows{0}, generated{0}, preemptions{0};
    std::atomic<double> tokens_per_sec{0};
    std::atomic<Clock::time_point> step_began{Clock::time_point()};  // the epoch: none runs
    std::atomic<bool> healthy{true};
  } published_;  // written by the engine thread

  std::thread thread_;  // last: everything above is ready when it starts
};

}  // namespace llorch
