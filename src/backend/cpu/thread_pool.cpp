#include "backend/cpu/thread_pool.h"

#include <utility>

#include "base/error.h"

namespace llorch::cpu {
namespace {

// Some tens of microseconds: longer than any imbalance inside a step, shorter than a scheduler's time slice.
constexpr int kSpins = 4000;

void pause_cpu() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Returns when ready(value) holds. Whoever makes it hold calls notify_all().
template <typename Ready>
void wait_for(const std::atomic<uint32_t>& value, Ready ready) {
  for (int i = 0; i < kSpins; ++i) {
    if (ready(value.load(std::memory_order_acquire))) return;
    pause_cpu();
  }
  for (uint32_t v; !ready(v = value.load(std::memory_order_acquire));) value.wait(v, std::memory_order_acquire);
}

}  // namespace

ThreadPool::ThreadPool(int n_threads) : n_threads_(n_threads) {
  LLORCH_CHECK(n_threads >= 1, "{} threads", n_threads);
  for (int t = 1; t < n_threads; ++t) threads_.emplace_back([this, t] { worker(t); });
}

ThreadPool::~ThreadPool() {
  stop_ = true;
  generation_.fetch_add(1, std::memory_order_release);
  generation_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

void ThreadPool::run(std::span<const uint32_t> tasks, const Work& work) {
  tasks_ = tasks;
  work_ = &work;
  if (done_.size() < tasks.size()) {
    done_ = std::vector<Done>(tasks.size());
    shares_ = std::vector<Share>(tasks.size() * static_cast<size_t>(n_threads_));
  }
  for (size_t s = 0; s < tasks.size(); ++s) done_[s].tasks.store(0, std::memory_order_relaxed);
  gate_.store(0, std::memory_order_release);
  generation_.fetch_add(1, std::memory_order_release);
  generation_.notify_all();
  walk(0);
  gate_.fetch_or(kClosed, std::memory_order_acq_rel);
  wait_for(gate_, [](uint32_t gate) { return gate == kClosed; });
  if (failure_) std::rethrow_exception(std::exchange(failure_, nullptr));
}

// Share i of n tasks is [i * n / threads, (i + 1) * n / threads), rounded up: of a single task it is thread 0's.
bool ThreadPool::take(size_t stage, int share, uint32_t& task) {
  const auto threads = static_cast<uint64_t>(n_threads_), i = static_cast<uint64_t>(share);
  const uint64_t begin = (i * tasks_[stage] + threads - 1) / threads;
  const uint64_t end = ((i + 1) * tasks_[stage] + threads - 1) / threads;
  std::atomic<uint64_t>& next = shares_[stage * threads + i].next;
  const uint64_t run = uint64_t{generation_.load(std::memory_order_relaxed)} << 32;
  for (uint64_t seen = next.load(std::memory_order_relaxed);;) {
    const uint64_t taken = seen >> 32 == run >> 32 ? seen & UINT32_MAX : 0;
    if (begin + taken >= end) return false;
    task = static_cast<uint32_t>(begin + taken);
    if (next.compare_exchange_weak(seen, run | (taken + 1), std::memory_order_relaxed)) return true;
  }
}

void ThreadPool::walk(int thread) {
  for (size_t s = 0; s < tasks_.size(); ++s) {
    std::atomic<uint32_t>& done = done_[s].tasks;
    const uint32_t n = tasks_[s];
    uint32_t mine = 0;
    for (int i = 0; i < n_threads_; ++i)
      for (uint32_t task; take(s, (thread + i) % n_threads_, task); ++mine) call(s, task, thread);
    if (mine > 0 && done.fetch_add(mine, std::memory_order_acq_rel) + mine == n) done.notify_all();
    wait_for(done, [n](uint32_t tasks) { return tasks == n; });
  }
}

void ThreadPool::call(size_t stage, uint32_t task, int thread) {
  try {
    (*work_)(stage, task, thread);
  } catch (...) {
    const std::lock_guard lock(failure_mutex_);
    if (!failure_) failure_ = std::current_exception();
  }
}

void ThreadPool::worker(int thread) {
  for (uint32_t seen = 0;;) {
    wait_for(generation_, [seen](uint32_t generation) { return generation != seen; });
    seen = generation_.load(std::memory_order_acquire);
    if (stop_) return;
    // Enter only an open run. What run() wrote before it opened the gate is visible from here on.
    uint32_t gate = gate_.load(std::memory_order_acquire);
    while ((gate & kClosed) == 0 && !gate_.compare_exchange_weak(gate, gate + 1, std::memory_order_acq_rel)) {
    }
    if ((gate & kClosed) != 0) continue;
    walk(thread);
    gate_.fetch_sub(1, std::memory_order_acq_rel);
    gate_.notify_all();
  }
}

}  // namespace llorch::cpu
