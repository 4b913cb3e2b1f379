// Which sequences run in the next step: the policy.
#include "engine/scheduler.h"

#include <algorithm>
#include <iterator>

namespace llorch {

Scheduler::Scheduler(const SchedulerOptions& options) : options_(options), pages_(options.n_pages) {
  LLORCH_CHECK(options.page_size > 0);
  LLORCH_CHECK(options.max_running > 0 && options.max_running <= options.max_step_rows,
               "{} sequences in steps of {} rows", options.max_running, options.max_step_rows);
  LLORCH_CHECK(options.max_prefill_rows > 0);
}

uint32_t Scheduler::pages_for(uint32_t positions) const {
  return (positions + options_.page_size - 1) / options_.page_size;
}

void Scheduler::add(std::unique_ptr<Sequence> sequence) {
  const uint32_t most = pages_for(sequence->n_tokens() + sequence->request.max_tokens);
  LLORCH_CHECK(most <= pages_.n_total(), "a sequence of {} pages in a pool of {}", most, pages_.n_total());
  waiting_.push_back(std::move(sequence));
}

ScheduledBatch Scheduler::next() {
  ScheduledBatch step;
  give_pages_to_decodes();
  for (const auto& sequence : running_)
    if (sequence->n_pending() == 1 && !sequence->awaits_end()) add_rows(*sequence, 1, step);

  uint32_t rows = std::min(options_.max_prefill_rows, options_.max_step_rows - step.batch.rows());
  const auto add_chunk = [&](Sequence& sequence) {
    const uint32_t chunk = std::min(sequence.n_pending(), rows);
    if (chunk > 0) add_rows(sequence, chunk, step);
    rows -= chunk;
  };
  for (const auto& sequence : running_)
    if (sequence->n_pending() > 1) add_chunk(*sequence);
  while (rows > 0 && admit_next()) add_chunk(*running_.back());
  return step;
}

// A sampled token may begin a new page. Oldest first: the youngest pay, by being computed again later. The oldest
// always gets its page, because it fits the pool alone; so every sequence ends.
void Scheduler::give_pages_to_decodes() {
  for (size_t i = 0; i < running_.size(); ++i) {
    Sequence& sequence = *running_[i];
    if (sequence.awaits_end()) continue;
    const uint32_t needed = pages_for(sequence.n_tokens());
    while (i < running_.size() && sequence.pages.size() < needed)
      if (!pages_.take(needed - static_cast<uint32_t>(sequence.pages.size()), sequence.pages)) preempt_youngest();
  }
}

void Scheduler::preempt_youngest() {
  Sequence& youngest = *running_.back();
  pages_.give_back(youngest.pages);
  youngest.n_computed = 0;
  waiting_.push_front(std::move(running_.back()));
  running_.pop_back();
  ++n_preemptions_;
}

// Gives the head of the queue pages for all its tokens at once, so that only decodes ever lack one. A spare page for
// each running sequence stays free: it would otherwise be preempted, and its prefill wasted, at their next page border.
bool Scheduler::admit_next() {
  if (waiting_.empty() || running_.size() >= options_.max_running) return false;
  Sequence& sequence = *waiting_.front();
  if (sequence.awaits_end()) return false;  // preempted after its last token was started
  const uint32_t needed = pages_for(sequence.n_tokens());
  if (needed + running_.size() > pages_.n_free()) return false;
  LLORCH_CHECK(pages_.take(needed, sequence.pages));
  if (options_.fault_keep_positions) sequence.n_computed = std::min(kept_positions_, sequence.n_tokens() - 1);
  running_.push_back(std::move(waiting_.front()));
  waiting_.pop_front();
  return true;
}

void Scheduler::add_rows(Sequence& sequence, uint32_t n_rows, ScheduledBatch& step) const {
  Batch& batch = step.batch;
  Batch::Sequence rows;
  rows.first_row = batch.rows();
  rows.n_rows = n_rows;
  rows.first_position = sequence.n_computed;
  rows.first_page = static_cast<uint32_t>(batch.pages.size());
  rows.n_pages = static_cast<uint32_t>(sequence.pages.size());
  batch.sequences.push_back(rows);
  const auto first = sequence.tokens.begin() + sequence.n_computed;
  batch.tokens.insert(batch.tokens.end(), first, first + n_rows);
  batch.pages.insert(batch.pages.end(), sequence.pages.begin(), sequence.pages.end());
  if (n_rows == sequence.n_pending()) batch.logit_rows.push_back(batch.rows() - 1);
  step.sequences.push_back(&sequence);
}

void Scheduler::commit(const ScheduledBatch& step) {
  for (size_t i = 0; i < step.sequences.size(); ++i) step.sequences[i]->n_computed += step.batch.sequences[i].n_rows;
}

std::unique_ptr<Sequence> Scheduler::remove(const Sequence* sequence) {
  const auto take_from = [&](auto& queue) -> std::unique_ptr<Sequence> {
    const auto at = std::find_if(queue.begin(), queue.end(), [&](const auto& s) { return s.get() == sequence; });
    if (at == queue.end()) return nullptr;
    std::unique_ptr<Sequence> taken = std::move(*at);
    queue.erase(at);
    return taken;
  };
  std::unique_ptr<Sequence> taken = take_from(running_);
  if (!taken) taken = take_from(waiting_);
  LLORCH_CHECK(taken != nullptr, "the sequence is not in the scheduler");
  kept_positions_ = taken->n_computed;
  pages_.give_back(taken->pages);
  return taken;
}

std::vector<std::unique_ptr<Sequence>> Scheduler::clear() {
  std::vector<std::unique_ptr<Sequence>> all = std::move(running_);
  all.insert(all.end(), std::make_move_iterator(waiting_.begin()), std::make_move_iterator(waiting_.end()));
  running_.clear();
  waiting_.clear();
  pages_ = PagePool(options_.n_pages);
  for (const auto& sequence : all) sequence->pages.clear();
  return all;
}

Sequence* Scheduler::find(RequestId id) const {
  for (Sequence* sequence : sequences())
    if (sequence->id == id) return sequence;
  return nullptr;
}

std::vector<Sequence*> Scheduler::sequences() const {
  std::vector<Sequence*> all;
  for (const auto& sequence : running_) all.push_back(sequence.get());
  for (const auto& sequence : waiting_) all.push_back(sequence.get());
  return all;
}

}  // namespace llorch
