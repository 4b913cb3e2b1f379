// Runs one kernel launch on the calling thread: a fiber for each CUDA thread of a block, one block after another.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>

struct dim3 {
  unsigned x = 1, y = 1, z = 1;
  constexpr dim3(unsigned x_size = 1, unsigned y_size = 1, unsigned z_size = 1) : x(x_size), y(y_size), z(z_size) {}
};
using uint3 = dim3;

namespace cuda_emulator {

// What a running CUDA thread knows of itself.
struct Lane {
  uint3 thread_index, block_index;
  dim3 block_size, grid_size;
  int lane = 0, warp = 0;
};

// In which order blocks run, and inside a block warps and the threads of a warp: what depends on it is a bug.
enum class Order { kForward, kReverse, kShuffled };

struct Launch {
  dim3 grid, block;
  size_t shared_bytes = 0;
  Order order = Order::kForward;
  std::function<void()> kernel;
};

inline constexpr size_t kSharedBytesUnasked = 48 << 10;  // what a block gets without asking for more
inline constexpr size_t kMaxSharedBytes = 227 << 10;
inline constexpr unsigned kMaxThreads = 1024;

// Runs all blocks. Throws std::runtime_error if threads meet at different barriers, if some wait while others have
// returned, or if a block writes behind its shared memory. Shared memory holds NaN when a block starts.
void execute(const Launch& launch);

// For code inside kernels.
inline constinit thread_local Lane* running_lane = nullptr;
inline Lane& lane() { return *running_lane; }
void block_barrier();             // __syncthreads
unsigned char* dynamic_shared();  // of the block, 16-byte aligned

// All lanes of a warp give a value, or a pointer; each gets those of all, until its next exchange.
const uint32_t* exchange(uint32_t value);
const void* const* share(const void* mine);

// For barriers in shared memory: lets the other threads run, until something may have changed; and says that it has.
// If all that are left only look again, and nothing has changed, the launch fails.
void poll();
void progress();

// cp.async: nothing is copied before the thread waits for the group that a copy belongs to.
void copy_async(void* shared, const void* global, size_t bytes);
void commit_copies();
void wait_for_copies(size_t groups_left);

}  // namespace cuda_emulator
