// The engine thread: finish a step, take the inbox, schedule, start the next step, and tell what the first one gave
// while a device computes.
#include "engine/engine.h"

#include <algorithm>
#include <cmath>
#include <future>
#include <utility>

#include "base/fault.h"
#include "engine/fault_trace.h"
#include "engine/request_failure.h"

namespace llorch {
namespace {

using Clock = std::chrono::steady_clock;

SchedulerOptions scheduler_options(const Program& program, const EngineOptions& options) {
  const CompileOptions& compiled = program.options();
  SchedulerOptions result;
  result.n_pages = compiled.kv.n_pages;
  result.page_size = compiled.kv.page_size;
  result.max_step_rows = std::min(options.max_step_rows, compiled.max_rows);
  result.max_prefill_rows = options.max_prefill_rows;
  result.max_running = std::min({options.max_running, compiled.max_logit_rows, result.max_step_rows});
  result.fault_keep_positions = options.fault_keep_positions;
  return result;
}

std::optional<std::string> invalid_sampling(const SamplingParams& p) {
  const auto within = [](float x, float limit) { return x >= 0.0f && x <= limit; };  // false for NaN
  if (!(std::isfinite(p.temperature) && p.temperature >= 0.0f))
    return fmt::format("temperature {} is not a finite number from 0", p.temperature);
  if (!within(p.top_p, 1.0f)) return fmt::format("top_p {} is not within 0..1", p.top_p);
  if (!within(p.min_p, 1.0f)) return fmt::format("min_p {} is not within 0..1", p.min_p);
  if (!(std::isfinite(p.repetition_penalty) && p.repetition_penalty >= 0.0f))
    return fmt::format("repetition_penalty {} is not a finite number from 0", p.repetition_penalty);
  return std::nullopt;
}

FinishEvent finish_event(const Sequence& sequence, FinishReason reason) {
  const Clock::time_point now = Clock::now();
  const Clock::time_point first = sequence.first_token_at.value_or(now);
  return {reason, sequence.n_generated(), ms_between(sequence.started_at, first), ms_between(first, now),
          sequence.logits_hash.value()};
}

}  // namespace

Engine::Engine(std::unique_ptr<Program> program, const EngineOptions& options)
    : program_(std::move(program)),
      context_(options.context == 0 ? program_->plan().context() : options.context),
      unhealthy_after_(options.unhealthy_after),
      on_record_(options.on_record),
      device_(options.device),
      scheduler_(scheduler_options(*program_, options)) {
  LLORCH_CHECK(context_ <= program_->plan().context(), "context {}, the plan has {}", context_,
               program_->plan().context());
  publish();
  thread_ = std::thread([this] { loop(); });
}

Engine::~Engine() { stop(); }

std::optional<Refusal> Engine::refusal(const Request& request) const {
  const auto invalid = [](std::string message) { return Refusal{ErrorCode::kInvalidRequest, std::move(message)}; };
  const uint32_t vocab = program_->plan().vocab;
  const KvShape& kv = program_->options().kv;
  if (request.tokens.empty()) return invalid("The prompt has no tokens.");
  if (request.max_tokens == 0) return invalid("max_tokens is 0.");
  const size_t most = request.tokens.size() + request.max_tokens;
  const std::string counts = fmt::format("{} prompt tokens and max_tokens {} are {} positions", request.tokens.size(),
                                         request.max_tokens, most);
  if (most > context_) return invalid(fmt::format("{}; the context has {}.", counts, context_));
  if (most > size_t{kv.n_pages} * kv.page_size)
    return Refusal{ErrorCode::kOutOfPages, fmt::format("{}; the whole KV memory holds {} ({} pages of {}).", counts,
                                                       size_t{kv.n_pages} * kv.page_size, kv.n_pages, kv.page_size)};
  for (const int32_t id : request.tokens)
    if (id < 0 || static_cast<uint32_t>(id) >= vocab)
      return invalid(fmt::format("The prompt has token id {}; the vocabulary has {} ids.", id, vocab));
  if (auto message = invalid_sampling(request.sampling)) return invalid(*message);
  return std::nullopt;
}

RequestId Engine::submit(Request request, EventSink sink) {
  std::optional<Refusal> refused = refusal(request);
  const RequestId id = ++last_id_;
  auto sequence = std::make_unique<Sequence>(id, std::move(request), std::move(sink));
  {
    const std::lock_guard lock(mutex_);
    if (!stopped_) {
      if (draining_ || stopping_) refused = Refusal{shutting_down().code, shutting_down().message};
      inbox_.submitted.push_back({std::move(sequence), std::move(refused)});
      ++n_alive_;
      wake_.notify_one();
      return id;
    }
  }
  Outbox::emit(*sequence, shutting_down());
  return id;
}

void Engine::cancel(RequestId id) {
  const std::lock_guard lock(mutex_);
  if (stopped_) return;
  inbox_.cancelled.push_back(id);
  wake_.notify_one();
}

double Engine::warm_up() {
  Request request;
  for (uint32_t i = 0; i < 4; ++i) request.tokens.push_back(static_cast<int32_t>(i % program_->plan().vocab));
  request.max_tokens = 2;
  request.sampling.temperature = 0.0f;
  std::promise<std::optional<FailEvent>> ended;
  const Clock::time_point start = Clock::now();
  submit(std::move(request), [&ended](const Event& event) {
    if (const auto* failed = std::get_if<FailEvent>(&event)) ended.set_value(*failed);
    if (std::holds_alternative<FinishEvent>(event)) ended.set_value(std::nullopt);
  });
  if (const auto failed = ended.get_future().get()) throw RequestError("warm-up failed", *failed);
  return ms_between(start, Clock::now());
}

bool Engine::drain(Clock::time_point deadline) {
  std::unique_lock lock(mutex_);
  draining_ = true;
  return idle_.wait_until(lock, deadline, [this] { return is_idle_ && inbox_.empty(); });
}

void Engine::stop() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
    wake_.notify_one();
  }
  std::call_once(joined_, [this] { thread_.join(); });
}

EngineStats Engine::stats() const {
  EngineStats stats;
  const uint32_t alive = n_alive_;
  stats.running = published_.running;
  stats.waiting = alive > stats.running ? alive - stats.running : 0;
  stats.kv_pages_free = published_.pages_free;
  stats.kv_pages_total = program_->options().kv.n_pages;
  stats.steps = published_.steps;
  stats.tokens_generated = published_.generated;
  stats.rows = published_.rows;
  stats.preemptions = published_.preemptions;
  stats.tokens_per_sec = published_.tokens_per_sec;
  stats.healthy = published_.healthy;
  if (const Clock::time_point began = published_.step_began; began != Clock::time_point())
    stats.step_ms = ms_between(began, Clock::now());
  return stats;
}

std::optional<FailEvent> Engine::broken() const {
  const std::lock_guard lock(mutex_);
  return broken_;
}

void Engine::loop() {
  while (true) {
    try {
      finish_step();
      const bool goes_on = take_inbox();
      if (!goes_on && flights_.empty()) break;
      end_expired();
      while (goes_on && may_start() && start_step()) {
      }
    } catch (const std::exception& error) {
      FailEvent event = failure(ErrorCode::kWorkerFault, "A bug has stopped the engine.");
      event.causes = cause_chain(error);
      break_down(event);
    }
    deliver();
    publish();
  }
  deliver();
  const std::lock_guard lock(mutex_);
  is_idle_ = true;
  idle_.notify_all();
}

// Waits while there is nothing to do; false when the engine stops.
bool Engine::take_inbox() {
  const bool is_idle = scheduler_.n_running() + scheduler_.n_waiting() == 0 && flights_.empty();
  if (is_idle) deliver();
  Inbox inbox;
  bool stopping = false;
  {
    std::unique_lock lock(mutex_);
    is_idle_ = is_idle;
    if (is_idle_ && inbox_.empty()) idle_.notify_all();
    wake_.wait(lock, [this] { return !is_idle_ || stopping_ || !inbox_.empty(); });
    is_idle_ = false;
    std::swap(inbox, inbox_);
    stopping = stopped_ = stopping_;
  }
  for (Submitted& submitted : inbox.submitted) {
    if (!submitted.refusal && !broken_) {
      scheduler_.add(std::move(submitted.sequence));
      continue;
    }
    --n_alive_;
    outbox_.send_last(std::move(submitted.sequence),
                      broken_ ? *broken_ : failure(submitted.refusal->code, submitted.refusal->message));
  }
  for (const RequestId id : inbox.cancelled)
    if (Sequence* sequence = scheduler_.find(id)) cancel_now(*sequence);
  if (stopping)
    for (Sequence* sequence : scheduler_.sequences()) cancel_now(*sequence);
  return !stopping;
}

void Engine::end_expired() {
  const Clock::time_point now = Clock::now();
  for (Sequence* sequence : scheduler_.sequences())
    if (sequence->request.deadline && *sequence->request.deadline <= now)
      end_failed(*sequence,
                 failure(ErrorCode::kTimeout, fmt::format("The deadline passed after {} of {} tokens.",
                                                          sequence->n_known(), sequence->request.max_tokens)));
}

// A lost device, or a bug of ours outside the program's steps, after which nothing is known about pages and queues.
// Every request ends, now and from now on.
void Engine::break_down(FailEvent failed) {
  {
    const std::lock_guard lock(mutex_);
    broken_ = std::move(failed);
  }
  flights_.clear();
  for (std::unique_ptr<Sequence>& sequence : scheduler_.clear()) {
    sequence->forget_unknown();
    FailEvent event = *broken_;
    event.logits_hash = sequence->logits_hash.value();
    --n_alive_;
    outbox_.send_last(std::move(sequence), std::move(event));
  }
}

void Engine::cancel_now(Sequence& sequence) {
  if (sequence.started)
    finish(sequence, FinishReason::kCancelled);
  else
    end_failed(sequence, failure(ErrorCode::kCancelled, "The request was cancelled before it started."));
}

void Engine::finish(Sequence& sequence, FinishReason reason) {
  forget(sequence);
  end(sequence, finish_event(sequence, reason));
}

void Engine::end_failed(Sequence& sequence, FailEvent event) {
  forget(sequence);
  event.logits_hash = sequence.logits_hash.value();
  end(sequence, event);
}

// Pages are free again before the sink hears of the end: what steps in flight write there, those behind them write
// over.
void Engine::end(Sequence& sequence, const Event& event) {
  --n_alive_;
  outbox_.send_last(scheduler_.remove(&sequence), event);
}

void Engine::deliver() {
  if (outbox_.empty()) return;
  publish();
  outbox_.deliver([this](const Sequence& sequence, const Event& event) { record(sequence, event); });
}

void Engine::record(const Sequence& sequence, const Event& event) const noexcept {
  const auto* failed = std::get_if<FailEvent>(&event);
  const bool is_fault =
      failed != nullptr && failed->code != ErrorCode::kCancelled && failed->code != ErrorCode::kTimeout;
  if (!on_record_ || !sequence.started || !(is_fault || sequence.request.record)) return;
  try {
    SequenceRecord record;
    record.id = sequence.id;
    record.tokens = sequence.tokens, record.n_prompt = sequence.n_prompt;
    record.max_tokens = sequence.request.max_tokens;
    record.eos = sequence.request.eos;
    record.sampling = sequence.request.sampling;
    record.logits_hashes = sequence.logits_hashes;
    if (failed != nullptr) record.failure = *failed;
    if (const auto* finished = std::get_if<FinishEvent>(&event)) record.finish = finished->reason;
    record.last_steps = step_log_.last();
    on_record_(record);
  } catch (...) {  // a recorder that fails costs the record, not the request
  }
}

void Engine::publish() {
  published_.running = scheduler_.n_running();
  published_.pages_free = scheduler_.pages().n_free();
  published_.preemptions = scheduler_.n_preemptions();
  published_.tokens_per_sec = scheduler_.n_running() == 0 ? 0.0 : rate_.per_second(Clock::now());
  published_.healthy = failed_steps_ < unhealthy_after_ && !broken_;
}

}  // namespace llorch
