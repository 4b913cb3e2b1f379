// The engine's steps. Behind decodes the next step is started before they have ended, if the program can: its tokens
// are then those that the step in flight samples, and a device goes from one to the other without its host. What such a
// step computes for a sequence that has ended meanwhile is thrown away.
#include <algorithm>
#include <utility>

#include "base/fault.h"
#include "engine/engine.h"
#include "engine/fault_trace.h"
#include "engine/request_failure.h"
#include "sampling/sample_token.h"

namespace llorch {

// Behind another one only if that has few decodes alone: so that nobody waits for two long steps; and if no sampling
// asks for the tokens that it has not given yet.
bool Engine::may_start() const {
  if (flights_.empty()) return true;
  const Flight& last = flights_.back();
  const uint32_t rows = last.step.batch.rows();
  return !last.failed && flights_.size() < program_->max_in_flight() && rows <= Program::kMaxRowsAhead &&
         last.sampled.size() == rows &&
         std::none_of(last.samplings.begin(), last.samplings.end(),
                      [](const RowSampling& row) { return sampling_detail::penalizes(row.params); });
}

// False if there is nothing to start.
bool Engine::start_step() {
  ScheduledBatch step = scheduler_.next();
  if (step.sequences.empty()) return false;
  LLORCH_CHECK(!fault("engine"), "injected");
  Flight& flight = flights_.emplace_back();
  flight.step = std::move(step);
  scheduler_.commit(flight.step);
  for (size_t i = 0; i < flight.step.sequences.size(); ++i) {
    Sequence& sequence = *flight.step.sequences[i];
    if (sequence.n_pending() == 0) {
      const uint32_t index = sequence.n_generated(), n_tokens = sequence.n_tokens();
      sequence.expect_token(static_cast<uint32_t>(flight.sampled.size()));
      flight.samplings.push_back({sequence.request.sampling, std::span(sequence.tokens).first(n_tokens), index});
      flight.sampled.push_back(&sequence);
    }
    if (std::exchange(sequence.started, true)) continue;
    sequence.started_at = Clock::now();
    outbox_.send(sequence, StartEvent{});
  }
  flight.began = Clock::now();
  if (flights_.size() == 1) published_.step_began = flight.began;
  try {
    program_->start(flight.step.batch, flight.samplings);
  } catch (const std::exception& error) {
    flight.failed = failure_of(error, ErrorCode::kInferenceFailed);  // it lands when those before it have
  }
  return true;
}

// The oldest one.
void Engine::finish_step() {
  if (flights_.empty()) return;
  std::span<const SampledRow> rows;
  std::optional<FailEvent> failed = flights_.front().failed;
  try {
    if (!failed) rows = program_->finish();
  } catch (const std::exception& error) {
    failed = failure_of(error, ErrorCode::kInferenceFailed);
  }
  const Flight flight = std::move(flights_.front());
  flights_.pop_front();
  land(flight, failed);
  if (failed) return;
  LLORCH_CHECK(rows.size() == flight.sampled.size(), "{} tokens for {} rows", rows.size(), flight.sampled.size());
  const auto n_sampled =
      std::count_if(flight.sampled.begin(), flight.sampled.end(), [](auto* s) { return s != nullptr; });
  published_.rows += flight.step.batch.rows();
  published_.generated += static_cast<uint64_t>(n_sampled);
  rate_.add(static_cast<uint32_t>(n_sampled), Clock::now());
  std::vector<std::pair<Sequence*, LogitsFault>> faulty;
  for (size_t i = 0; i < flight.sampled.size(); ++i) {
    Sequence* sequence = flight.sampled[i];
    if (sequence == nullptr) continue;
    if (rows[i].fault != LogitsFault::kNone)
      faulty.emplace_back(sequence, rows[i].fault);
    else
      take(*sequence, rows[i]);
  }
  if (faulty.empty()) return;
  // Last, because running them again takes the rows of the others away; and when the program has nothing else to do.
  for (const auto& [sequence, fault] : faulty) forget(*sequence);
  while (!flights_.empty()) finish_step();
  if (broken_) return;
  for (const auto& [sequence, fault] : faulty) end_failed(*sequence, trace_fault(*program_, fault, *sequence, device_));
}

// A step has ended, one way or the other.
void Engine::land(const Flight& flight, const std::optional<FailEvent>& failed) {
  const Batch& batch = flight.step.batch;
  const Clock::time_point began = std::max(flight.began, landed_at_);
  landed_at_ = Clock::now();
  StepTiming timing;
  timing.start_ms = ms_between(made_at_, began);
  timing.ms = ms_between(began, landed_at_);
  timing.rows = batch.rows();
  timing.sequences = static_cast<uint32_t>(batch.sequences.size());
  timing.logit_rows = static_cast<uint32_t>(batch.logit_rows.size());
  timing.failed = failed.has_value();
  step_log_.add(timing);
  published_.step_began = flights_.empty() ? Clock::time_point() : landed_at_;
  if (failed) {
    ++failed_steps_;
    fail_step(flight.step, *failed);
  } else {
    failed_steps_ = 0;
    ++published_.steps;
  }
}

// The first unknown token of a sequence, from a sound row.
void Engine::take(Sequence& sequence, const SampledRow& row) {
  const int32_t id = row.token;
  LLORCH_CHECK(id != kNoToken, "a sound row without a token");
  sequence.logits_hash.add(row.hash);
  sequence.logits_hashes.push_back(sequence.logits_hash.value());
  if (!sequence.first_token_at) sequence.first_token_at = Clock::now();
  const std::vector<int32_t>& eos = sequence.request.eos;
  if (std::find(eos.begin(), eos.end(), id) != eos.end()) return finish(sequence, FinishReason::kEos);
  sequence.tell_token(id);
  outbox_.send(sequence, TokenEvent{id, sequence.n_known() - 1, sequence.logits_hashes.back()});
  if (sequence.n_known() == sequence.request.max_tokens) finish(sequence, FinishReason::kMaxTokens);
}

void Engine::fail_step(const ScheduledBatch& step, FailEvent event) {
  for (size_t i = 0; i < step.sequences.size(); ++i) {
    if (step.sequences[i] == nullptr) continue;
    event.position = step.batch.sequences[i].first_position;
    event.kv_len = event.position + step.batch.sequences[i].n_rows;
    end_failed(*step.sequences[i], event);
  }
  event.position = event.kv_len = 0;
  if (event.code == ErrorCode::kDeviceLost) break_down(event);
}

// What steps in flight compute for it is not wanted any more.
void Engine::forget(Sequence& sequence) {
  sequence.forget_unknown();
  for (Flight& flight : flights_) {
    std::replace(flight.step.sequences.begin(), flight.step.sequences.end(), &sequence,
                 static_cast<Sequence*>(nullptr));
    std::replace(flight.sampled.begin(), flight.sampled.end(), &sequence, static_cast<Sequence*>(nullptr));
  }
}

}  // namespace llorch
