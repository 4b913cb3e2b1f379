// Fibers, barriers and warp exchanges of the emulated GPU.
#include "executor.h"

#include <sys/mman.h>
#include <ucontext.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <deque>
#include <exception>
#include <memory>
#include <random>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

namespace cuda_emulator {
namespace {

constexpr size_t kStackBytes = 128 << 10;
constexpr size_t kSharedGuard = 4096;
constexpr unsigned char kPoison = 0xff;  // NaN as a float

enum class State : uint8_t { kReady, kAtBlockBarrier, kAtExchange, kPolling, kDone };

// swapcontext asks the kernel for the signal mask each time (a microsecond); where we know the machine, registers are
// switched by hand.
#if defined(__x86_64__)
extern "C" void cuda_emulator_switch(void** save, void* load);
asm(R"(
.text
.globl cuda_emulator_switch
.type cuda_emulator_switch,@function
cuda_emulator_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size cuda_emulator_switch, .-cuda_emulator_switch
)");

class Context {
 public:
  void prepare(char* stack, size_t bytes, void (*entry)()) {
    auto* top = reinterpret_cast<void**>(stack + bytes);
    *--top = nullptr;  // the return address of entry, which never returns
    *--top = reinterpret_cast<void*>(entry);
    for (int i = 0; i < 6; ++i) *--top = nullptr;
    pointer_ = top;
  }
  static void change(Context& from, Context& to) { cuda_emulator_switch(&from.pointer_, to.pointer_); }

 private:
  void* pointer_ = nullptr;
};
#else
class Context {
 public:
  void prepare(char* stack, size_t bytes, void (*entry)()) {
    getcontext(&context_);
    context_.uc_stack.ss_sp = stack;
    context_.uc_stack.ss_size = bytes;
    context_.uc_link = nullptr;
    makecontext(&context_, entry, 0);
  }
  static void change(Context& from, Context& to) { swapcontext(&from.context_, &to.context_); }

 private:
  ucontext_t context_{};
};
#endif

struct Fiber {
  Context context;
  char* stack = nullptr;
  void* fake_stack = nullptr;  // the address sanitizer's
  State state = State::kDone;
  unsigned exchanges = 0;
  Lane lane;
  struct Copy {
    void* to;
    const void* from;
    size_t bytes;
  };
  std::vector<Copy> uncommitted;
  std::deque<std::vector<Copy>> committed;
};

class Executor {
 public:
  Executor() {
    stacks_ = static_cast<char*>(mmap(nullptr, kMaxThreads * kStackBytes, PROT_READ | PROT_WRITE,
                                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
    if (stacks_ == MAP_FAILED) throw std::bad_alloc();
    for (unsigned i = 0; i < kMaxThreads; ++i) fibers_[i].stack = stacks_ + i * kStackBytes;
    reset_fibers();
  }
  ~Executor() { munmap(stacks_, kMaxThreads * kStackBytes); }
  Executor(const Executor&) = delete;
  Executor& operator=(const Executor&) = delete;

  static Executor& current() {
    thread_local Executor executor;
    return executor;
  }

  void execute(const Launch& launch) {
    launch_ = &launch;
    n_threads_ = launch.block.x * launch.block.y * launch.block.z;
    if (n_threads_ == 0 || n_threads_ > kMaxThreads)
      throw std::runtime_error(std::to_string(n_threads_) + " threads in a block");
    if (launch.shared_bytes > kMaxSharedBytes)
      throw std::runtime_error(std::to_string(launch.shared_bytes) + " bytes of shared memory");
    const unsigned n_blocks = launch.grid.x * launch.grid.y * launch.grid.z;
    try {
      for (const unsigned b : ordered(n_blocks))
        run_block({b % launch.grid.x, b / launch.grid.x % launch.grid.y, b / launch.grid.x / launch.grid.y});
    } catch (...) {
      reset_fibers();  // some stand in the middle of the kernel
      throw;
    }
  }

  unsigned char* shared() { return shared_; }

  void block_barrier() {
    running_->state = State::kAtBlockBarrier;
    leave();
  }

  const void* const* share(const void* mine) {
    auto& pointers = shared_pointers_[static_cast<size_t>(running_->lane.warp)];
    pointers[static_cast<size_t>(running_->lane.lane)] = mine;
    exchange(0);
    return pointers.data();
  }
  void poll() {
    running_->state = State::kPolling;
    leave();
  }
  void progress() { has_progress_ = true; }

  void copy_async(void* to, const void* from, size_t bytes) {
    const auto aligned = [&](const void* p) { return reinterpret_cast<uintptr_t>(p) % bytes == 0; };
    if (!aligned(to) || !aligned(from)) throw std::runtime_error("an asynchronous copy is not aligned");
    running_->uncommitted.push_back({to, from, bytes});
  }
  void commit_copies() { running_->committed.push_back(std::exchange(running_->uncommitted, {})); }
  void wait_for_copies(size_t groups_left) {
    for (auto& groups = running_->committed; groups.size() > groups_left; groups.pop_front())
      for (const Fiber::Copy& copy : groups.front()) std::memcpy(copy.to, copy.from, copy.bytes);
  }

  const uint32_t* exchange(uint32_t value) {
    Fiber& f = *running_;
    // A lane may be one exchange ahead of one that has not read yet, never two.
    auto& slots = slots_[static_cast<size_t>(f.lane.warp)][f.exchanges++ % 2];
    slots[static_cast<size_t>(f.lane.lane)] = value;
    f.state = State::kAtExchange;
    leave();
    return slots.data();
  }

 private:
  void reset_fibers() {
#if defined(__SANITIZE_ADDRESS__)
    __asan_unpoison_memory_region(stacks_, kMaxThreads * kStackBytes);  // frames that were left, or another thread's
#endif
    for (Fiber& f : fibers_) f.context.prepare(f.stack, kStackBytes, [] { current().fiber_main(); });
  }

  std::vector<unsigned> ordered(unsigned n) {
    std::vector<unsigned> order(n);
    for (unsigned i = 0; i < n; ++i) order[i] = launch_->order == Order::kReverse ? n - 1 - i : i;
    if (launch_->order == Order::kShuffled) std::shuffle(order.begin(), order.end(), random_);
    return order;
  }

  void run_block(uint3 block_index) {
    std::fill_n(shared_, launch_->shared_bytes + kSharedGuard, kPoison);
    for (unsigned t = 0; t < n_threads_; ++t) {
      Fiber& f = fibers_[t];
      const dim3& size = launch_->block;
      f.state = State::kReady;
      f.exchanges = 0;
      f.uncommitted.clear();
      f.committed.clear();
      f.lane = {{t % size.x, t / size.x % size.y, t / size.x / size.y},
                block_index,
                size,
                launch_->grid,
                static_cast<int>(t % 32),
                static_cast<int>(t / 32)};
    }
    const std::vector<unsigned> warps = ordered((n_threads_ + 31) / 32);
    while (true) {
      has_progress_ = false;
      for (const unsigned warp : warps) run_warp(warp);
      const unsigned n_done = count(State::kDone, 0, n_threads_);
      if (n_done == n_threads_) break;
      if (count(State::kPolling, 0, n_threads_) > 0) {
        if (!has_progress_) throw std::runtime_error("threads wait for a phase of a barrier that nobody ends");
        for (unsigned t = 0; t < n_threads_; ++t)
          if (fibers_[t].state == State::kPolling) fibers_[t].state = State::kReady;
        continue;
      }
      if (n_done > 0) throw std::runtime_error("threads wait at a barrier, others of their block have returned");
      for (unsigned t = 0; t < n_threads_; ++t) fibers_[t].state = State::kReady;
    }
    for (size_t i = 0; i < kSharedGuard; ++i)
      if (shared_[launch_->shared_bytes + i] != kPoison)
        throw std::runtime_error("a block wrote behind its shared memory");
  }

  unsigned count(State state, unsigned first, unsigned n) const {
    return static_cast<unsigned>(std::count_if(fibers_.begin() + first, fibers_.begin() + first + n,
                                               [&](const Fiber& f) { return f.state == state; }));
  }

  // Until all its threads have returned, wait at the block's barrier or poll.
  void run_warp(unsigned warp) {
    const unsigned first = warp * 32, n = std::min(32u, n_threads_ - first);
    const std::vector<unsigned> order = ordered(n);
    while (true) {
      for (const unsigned i : order)
        if (fibers_[first + i].state == State::kReady) enter(fibers_[first + i]);
      const unsigned exchanging = count(State::kAtExchange, first, n), polling = count(State::kPolling, first, n);
      if (exchanging == 0 || (polling > 0 && exchanging + polling == n)) return;
      if (exchanging != n) throw std::runtime_error("lanes of a warp exchange, others of it do not");
      for (unsigned i = 0; i < n; ++i) fibers_[first + i].state = State::kReady;
    }
  }

  void enter(Fiber& fiber) {
    running_ = &fiber;
    running_lane = &fiber.lane;
#if defined(__SANITIZE_ADDRESS__)
    void* fake = nullptr;
    __sanitizer_start_switch_fiber(&fake, fiber.stack, kStackBytes);
    Context::change(scheduler_, fiber.context);
    __sanitizer_finish_switch_fiber(fake, nullptr, nullptr);
#else
    Context::change(scheduler_, fiber.context);
#endif
    running_ = nullptr;
    if (failure_) std::rethrow_exception(std::exchange(failure_, nullptr));
  }

  // From a fiber back to the scheduler.
  void leave() {
    Fiber& fiber = *running_;
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_start_switch_fiber(&fiber.fake_stack, scheduler_stack_, scheduler_stack_bytes_);
    Context::change(fiber.context, scheduler_);
    __sanitizer_finish_switch_fiber(fiber.fake_stack, &scheduler_stack_, &scheduler_stack_bytes_);
#else
    Context::change(fiber.context, scheduler_);
#endif
  }

  void fiber_main() {
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(nullptr, &scheduler_stack_, &scheduler_stack_bytes_);
#endif
    while (true) {
      try {
        launch_->kernel();
      } catch (...) {
        failure_ = std::current_exception();
      }
      running_->state = State::kDone;
      leave();
    }
  }

  bool has_progress_ = false;
  const Launch* launch_ = nullptr;
  unsigned n_threads_ = 0;
  char* stacks_ = nullptr;
  std::array<Fiber, kMaxThreads> fibers_;
  std::array<std::array<std::array<uint32_t, 32>, 2>, kMaxThreads / 32> slots_{};
  std::array<std::array<const void*, 32>, kMaxThreads / 32> shared_pointers_{};
  alignas(256) unsigned char shared_[kMaxSharedBytes + kSharedGuard];
  Context scheduler_;
  const void* scheduler_stack_ = nullptr;
  size_t scheduler_stack_bytes_ = 0;
  Fiber* running_ = nullptr;
  std::exception_ptr failure_;
  std::minstd_rand random_{1};
};

}  // namespace

void execute(const Launch& launch) { Executor::current().execute(launch); }
void block_barrier() { Executor::current().block_barrier(); }
const uint32_t* exchange(uint32_t value) { return Executor::current().exchange(value); }
unsigned char* dynamic_shared() { return Executor::current().shared(); }
const void* const* share(const void* mine) { return Executor::current().share(mine); }
void poll() { Executor::current().poll(); }
void progress() { Executor::current().progress(); }
void copy_async(void* shared, const void* global, size_t bytes) {
  Executor::current().copy_async(shared, global, bytes);
}
void commit_copies() { Executor::current().commit_copies(); }
void wait_for_copies(size_t groups_left) { Executor::current().wait_for_copies(groups_left); }

}  // namespace cuda_emulator
