// Threads that walk a list of stages together. Each takes the tasks of its own share in order, and then those that are
// left of the others'.
//
// A share is contiguous, so a thread that streams weights reads one long run of memory: with tasks dealt out one by one
// two Sapphire Rapids cores read f16 weights at 22 GB/s, with shares at 35, which is their roof.
//
// A stage ends when its tasks are done, not when all threads have arrived: a thread that the system has taken off its
// processor delays only the task that it holds. On shared machines, and on those with fast and slow cores, that is the
// difference between losing a little and losing nearly everything. Waiting spins briefly (a stage is microseconds
// long), then sleeps in the kernel.
#pragma once

#include <atomic>
#include <cstdint>
#include <exception>
#include <functional>
#include <mutex>
#include <span>
#include <thread>
#include <vector>

namespace llorch::cpu {

class ThreadPool {
 public:
  // Called once for each task; `thread` is 0 .. size() - 1 and stands for memory that is this thread's own.
  using Work = std::function<void(size_t stage, uint32_t task, int thread)>;

  // n_threads of 1 or more; the caller of run() is thread 0.
  explicit ThreadPool(int n_threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int size() const { return n_threads_; }

  // Stage s has tasks[s] tasks; each stage sees all that the stages before it wrote. Returns when all are done. If
  // tasks throw, the rest runs all the same and the first exception is rethrown here. One caller at a time.
  void run(std::span<const uint32_t> tasks, const Work& work);

 private:
  struct alignas(64) Done {
    std::atomic<uint32_t> tasks{0};
  };
  // The next task of a share, and the run that it belongs to in the upper half: of an older run it means the first.
  struct alignas(64) Share {
    std::atomic<uint64_t> next{0};
  };

  void worker(int thread);
  void walk(int thread);
  bool take(size_t stage, int share, uint32_t& task);
  void call(size_t stage, uint32_t task, int thread);

  const int n_threads_;
  std::span<const uint32_t> tasks_;
  const Work* work_ = nullptr;
  std::vector<Done> done_;                           // [stages]
  std::vector<Share> shares_;                        // [stages][threads]
  alignas(64) std::atomic<uint32_t> generation_{0};  // of run(); workers wait for the next
  // Workers inside the current run; kClosed when there is none. A worker that comes late finds it closed and sleeps on,
  // so run() waits only for those that really take part.
  static constexpr uint32_t kClosed = 1u << 31;
  alignas(64) std::atomic<uint32_t> gate_{kClosed};
  std::atomic<bool> stop_{false};
  std::mutex failure_mutex_;
  std::exception_ptr failure_;
  std::vector<std::thread> threads_;
};

}  // namespace llorch::cpu
