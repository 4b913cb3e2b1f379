// Fork and join for the engine thread: a fixed set of threads that run one function together, with a barrier between
// phases. Waiting spins briefly (a phase is microseconds long), then sleeps in the kernel.
#pragma once

#include <atomic>
#include <cstdint>
#include <exception>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace llorch::cpu {

class ThreadPool {
 public:
  // n_threads of 1 or more; the caller of run() is thread 0.
  explicit ThreadPool(int n_threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int size() const { return n_threads_; }

  // Calls work(thread) on every thread and returns when all have. An exception on any thread is rethrown here once all
  // have returned; `work` must not throw between barriers that other threads still wait at. One caller at a time.
  void run(const std::function<void(int)>& work);

  // Inside run(): returns when every thread has called it.
  void barrier();

 private:
  void worker(int thread);
  void call(int thread);
  // Waits until `value` is no longer `old`.
  static void wait_while(const std::atomic<uint32_t>& value, uint32_t old);

  const int n_threads_;
  const std::function<void(int)>* work_ = nullptr;
  alignas(64) std::atomic<uint32_t> start_{0};    // generation of run()
  alignas(64) std::atomic<uint32_t> running_{0};  // workers that have not returned
  alignas(64) std::atomic<uint32_t> arrived_{0};
  alignas(64) std::atomic<uint32_t> phase_{0};
  std::atomic<bool> stop_{false};
  std::mutex failure_mutex_;
  std::exception_ptr failure_;
  std::vector<std::thread> threads_;
};

// Share `thread` of n items in n_threads contiguous shares: [first, last).
struct Share {
  int first, last;
};
inline Share share_of(int n, int thread, int n_threads) {
  return {static_cast<int>(int64_t{n} * thread / n_threads), static_cast<int>(int64_t{n} * (thread + 1) / n_threads)};
}

}  // namespace llorch::cpu
