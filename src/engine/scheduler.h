// Which sequences run in the next step, with how many rows: token budget, pages, chunked prefill, preemption.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <vector>

#include "backend/backend.h"
#include "engine/page_pool.h"
#include "engine/sequence.h"

namespace llorch {

struct SchedulerOptions {
  uint32_t n_pages = 0;
  uint32_t page_size = 0;  // positions
  uint32_t max_step_rows = 0;
  uint32_t max_prefill_rows = 0;      // in one step
  uint32_t max_running = 0;           // at most max_step_rows
  bool fault_keep_positions = false;  // see EngineOptions
};

// A batch and whose it is: batch.sequences[i] are rows of sequences[i].
struct ScheduledBatch {
  Batch batch;
  std::vector<Sequence*> sequences;
};

// Owns all sequences and their pages. First come, first served: running sequences are in order of arrival, the oldest
// is never preempted, nobody overtakes the head of the waiting queue. Not thread-safe: belongs to the engine thread.
class Scheduler {
 public:
  explicit Scheduler(const SchedulerOptions& options);

  // The sequence must fit: prompt and max_tokens within the pool.
  void add(std::unique_ptr<Sequence> sequence);

  // The next step; empty only if there is no sequence. Decode rows come first, so that every running sequence advances
  // in every step; then chunks of prefill; then waiting sequences while rows and pages last.
  ScheduledBatch next();

  // The rows of the step will be in the pages before those of the next step run.
  void commit(const ScheduledBatch& step);

  // Takes a sequence out, wherever it is, and frees its pages. Throws BugError if it is not here.
  std::unique_ptr<Sequence> remove(const Sequence* sequence);

  // Takes all out, oldest first.
  std::vector<std::unique_ptr<Sequence>> clear();

  Sequence* find(RequestId id) const;        // or nullptr
  std::vector<Sequence*> sequences() const;  // running, then waiting, in order
  uint32_t n_running() const { return static_cast<uint32_t>(running_.size()); }
  uint32_t n_waiting() const { return static_cast<uint32_t>(waiting_.size()); }
  uint64_t n_preemptions() const { return n_preemptions_; }
  const PagePool& pages() const { return pages_; }

 private:
  uint32_t pages_for(uint32_t positions) const;
  void give_pages_to_decodes();
  void preempt_youngest();
  bool admit_next();
  void add_rows(Sequence& sequence, uint32_t n_rows, ScheduledBatch& step) const;

  SchedulerOptions options_;
  PagePool pages_;
  std::vector<std::unique_ptr<Sequence>> running_;  // own pages for all their tokens; oldest first
  std::deque<std::unique_ptr<Sequence>> waiting_;   // own none; preempted ones in front
  uint64_t n_preemptions_ = 0;
  uint32_t kept_positions_ = 0;  // fault_keep_positions
};

}  // namespace llorch
