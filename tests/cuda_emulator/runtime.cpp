// The emulated CUDA runtime: devices that differ in size and in the order in which they run blocks, memory between
// guards, streams that run late.
#include <chrono>
#include <cstdlib>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <new>
#include <string>
#include <vector>

#include "cuda_runtime.h"

namespace cuda_emulator {
namespace {

constexpr size_t kGuard = 1024;
constexpr size_t kAlign = 256;
constexpr unsigned char kPoison = 0xff;  // what new memory and its guards hold: NaN as a float
constexpr size_t kMemory = size_t{4} << 30;
// Sizes differ too, so that work is cut in other ways. The second device has the shared memory of compute
// capability 8.6.
constexpr int kMajors[] = {9, 8, 9}, kMinors[] = {0, 6, 0}, kMultiprocessors[] = {4, 32, 132};
constexpr size_t kSharedOfBlock[] = {kMaxSharedBytes, 99 << 10, kMaxSharedBytes};  // of a multiprocessor: 1 KB more
constexpr Order kOrders[] = {Order::kForward, Order::kReverse, Order::kShuffled};
constexpr const char* kNames[] = {"emulated GPU, blocks forward", "emulated GPU, blocks in reverse",
                                  "emulated GPU, blocks shuffled"};

thread_local int current_device = 0;
thread_local cudaError_t last_error = cudaSuccess;
thread_local std::string last_message;

cudaError_t result(cudaError_t error, const std::string& message = {}) {
  if (error != cudaSuccess) {
    last_error = error;
    last_message = message;
  }
  return error;
}

// All device memory; threads share it.
class Memory {
 public:
  static Memory& all() {
    static Memory memory;
    return memory;
  }

  void* allocate(size_t bytes) {
    const std::lock_guard lock(mutex_);
    if (used_ + bytes > kMemory) return nullptr;
    const size_t total = (bytes + 2 * kGuard + kAlign - 1) / kAlign * kAlign;
    auto* block = static_cast<unsigned char*>(std::aligned_alloc(kAlign, total));
    if (block == nullptr) return nullptr;
    std::fill_n(block, total, kPoison);
    used_ += bytes;
    blocks_[block + kGuard] = bytes;
    return block + kGuard;
  }

  bool free(void* memory) {
    const std::lock_guard lock(mutex_);
    const auto it = blocks_.find(static_cast<unsigned char*>(memory));
    if (it == blocks_.end() || !is_sound(*it)) return false;
    used_ -= it->second;
    std::free(it->first - kGuard);
    blocks_.erase(it);
    return true;
  }

  // Whether nothing was written between the blocks.
  bool are_sound() {
    const std::lock_guard lock(mutex_);
    return std::all_of(blocks_.begin(), blocks_.end(), is_sound);
  }

  size_t used() {
    const std::lock_guard lock(mutex_);
    return used_;
  }

  void* allocate_pinned(size_t bytes) {
    const std::lock_guard lock(mutex_);
    void* memory = std::malloc(bytes);
    if (memory != nullptr) pinned_[memory] = bytes;
    return memory;
  }
  void free_pinned(void* memory) {
    const std::lock_guard lock(mutex_);
    pinned_.erase(memory);
    std::free(memory);
  }
  size_t pinned() {
    const std::lock_guard lock(mutex_);
    size_t total = 0;
    for (const auto& [memory, bytes] : pinned_) total += bytes;
    return total;
  }

 private:
  static bool is_sound(const std::pair<unsigned char* const, size_t>& block) {
    const auto holds = [](unsigned char c) { return c == kPoison; };
    return std::all_of(block.first - kGuard, block.first, holds) &&
           std::all_of(block.first + block.second, block.first + block.second + kGuard, holds);
  }

  std::mutex mutex_;
  std::map<unsigned char*, size_t> blocks_;
  size_t used_ = 0;
  std::map<void*, size_t> pinned_;
};

}  // namespace

using Work = std::function<void()>;

class Graph {
 public:
  std::vector<Work> work;
};

struct Event {
  Stream* stream = nullptr;
  std::chrono::steady_clock::time_point at;
};

class Stream {
 public:
  explicit Stream(int stream_device) : device(stream_device) {}

  void enqueue(Work work) {
    if (capturing)
      capturing->work.push_back(std::move(work));
    else
      queue_.push_back(std::move(work));
  }

  // Nothing runs before somebody waits: memory that the host reuses or frees too early is wrong, as on a device.
  cudaError_t drain() {
    try {
      for (; !queue_.empty(); queue_.pop_front()) queue_.front()();
    } catch (const std::exception& error) {
      queue_.clear();
      return result(cudaErrorLaunchFailure, error.what());
    }
    if (!Memory::all().are_sound())
      return result(cudaErrorIllegalAddress, "memory between two allocations was written");
    return cudaSuccess;
  }

  const int device;
  std::unique_ptr<Graph> capturing;

 private:
  std::deque<Work> queue_;
};

// What kernels have asked for, on each device.
std::map<std::pair<int, const void*>, size_t>& allowed_shared() {
  thread_local std::map<std::pair<int, const void*>, size_t> allowed;
  return allowed;
}

cudaError_t allow_shared(const void* kernel, size_t bytes) {
  if (bytes > kSharedOfBlock[current_device]) return result(cudaErrorInvalidValue);
  allowed_shared()[{current_device, kernel}] = bytes;
  return cudaSuccess;
}

cudaError_t enqueue_kernel(const cudaLaunchConfig_t& config, const void* kernel, std::function<void()> call) {
  if (config.stream->device != current_device)
    return result(cudaErrorInvalidResourceHandle, "the stream is of another device than the current one");
  const auto asked = allowed_shared().find({config.stream->device, kernel});
  const size_t allowed = asked == allowed_shared().end() ? kSharedBytesUnasked : asked->second;
  const unsigned threads = config.blockDim.x * config.blockDim.y * config.blockDim.z;
  if (threads == 0 || threads > kMaxThreads || config.dynamicSmemBytes > allowed || config.gridDim.x == 0 ||
      config.gridDim.y == 0 || config.gridDim.z == 0 || config.gridDim.y > 65535 || config.gridDim.z > 65535)
    return result(cudaErrorInvalidConfiguration);
  const auto launch = std::make_shared<Launch>(Launch{config.gridDim, config.blockDim, config.dynamicSmemBytes,
                                                      kOrders[config.stream->device], std::move(call)});
  config.stream->enqueue([launch] { execute(*launch); });
  return cudaSuccess;
}

size_t pinned_bytes() { return Memory::all().pinned(); }

}  // namespace cuda_emulator

using cuda_emulator::Memory;
using cuda_emulator::result;

const char* cudaGetErrorName(cudaError_t error) {
  switch (error) {
    case cudaErrorMemoryAllocation:
      return "cudaErrorMemoryAllocation";
    case cudaErrorInvalidConfiguration:
      return "cudaErrorInvalidConfiguration";
    case cudaErrorIllegalAddress:
      return "cudaErrorIllegalAddress";
    case cudaErrorLaunchFailure:
      return "cudaErrorLaunchFailure";
    case cudaErrorInvalidDevice:
      return "cudaErrorInvalidDevice";
    default:
      return "cudaError";
  }
}
const char* cudaGetErrorString(cudaError_t) {
  return cuda_emulator::last_message.empty() ? "emulated error" : cuda_emulator::last_message.c_str();
}
cudaError_t cudaGetLastError() { return std::exchange(cuda_emulator::last_error, cudaSuccess); }
cudaError_t cudaGetDeviceCount(int* count) {
  *count = static_cast<int>(std::size(cuda_emulator::kOrders));
  return cudaSuccess;
}
cudaError_t cudaSetDevice(int device) {
  if (device < 0 || device >= static_cast<int>(std::size(cuda_emulator::kOrders)))
    return result(cudaErrorInvalidDevice);
  cuda_emulator::current_device = device;
  return cudaSuccess;
}
cudaError_t cudaDriverGetVersion(int* version) {
  *version = 13000;
  return cudaSuccess;
}
cudaError_t cudaRuntimeGetVersion(int* version) {
  *version = 13000;
  return cudaSuccess;
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device) {
  namespace emulator = cuda_emulator;
  const size_t shared = emulator::kSharedOfBlock[device];
  *properties = {{},
                 emulator::kMajors[device],
                 emulator::kMinors[device],
                 emulator::kMultiprocessors[device],
                 1 << 20,
                 emulator::kMemory,
                 shared,
                 shared + 1024};
  std::strncpy(properties->name, cuda_emulator::kNames[device], sizeof properties->name - 1);
  return cudaSuccess;
}
cudaError_t cudaMemGetInfo(size_t* free, size_t* total) {
  *total = cuda_emulator::kMemory;
  *free = *total - Memory::all().used();
  return cudaSuccess;
}
cudaError_t cudaMalloc(void** memory, size_t bytes) {
  *memory = Memory::all().allocate(bytes);
  return *memory == nullptr ? result(cudaErrorMemoryAllocation) : cudaSuccess;
}
cudaError_t cudaFree(void* memory) {
  if (memory == nullptr || Memory::all().free(memory)) return cudaSuccess;
  return result(cudaErrorIllegalAddress, "freed memory was written outside its bounds, or was not allocated");
}
cudaError_t cudaHostAlloc(void** memory, size_t bytes, unsigned) {
  *memory = Memory::all().allocate_pinned(bytes);
  return *memory == nullptr ? result(cudaErrorMemoryAllocation) : cudaSuccess;
}
cudaError_t cudaFreeHost(void* memory) {
  Memory::all().free_pinned(memory);
  return cudaSuccess;
}
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind, cudaStream_t stream) {
  stream->enqueue([=] { std::memcpy(to, from, bytes); });
  return cudaSuccess;
}
cudaError_t cudaMemsetAsync(void* at, int value, size_t bytes, cudaStream_t stream) {
  stream->enqueue([=] { std::memset(at, value, bytes); });
  return cudaSuccess;
}
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  *stream = new cuda_emulator::Stream(cuda_emulator::current_device);
  return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  delete stream;
  return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) { return stream->drain(); }
cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode) {
  stream->capturing = std::make_unique<cuda_emulator::Graph>();
  return cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  *graph = stream->capturing.release();
  return *graph == nullptr ? result(cudaErrorInvalidValue) : cudaSuccess;
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* exec, cudaGraph_t graph, unsigned long long) {
  *exec = new cuda_emulator::Graph(*graph);
  return cudaSuccess;
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream) {
  for (const auto& work : exec->work) stream->enqueue(work);
  return cudaSuccess;
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  delete graph;
  return cudaSuccess;
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec) {
  delete exec;
  return cudaSuccess;
}
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  *event = new cuda_emulator::Event;
  return cudaSuccess;
}
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  delete event;
  return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  event->stream = stream;
  stream->enqueue([event] { event->at = std::chrono::steady_clock::now(); });
  return cudaSuccess;
}
cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  return event->stream == nullptr ? cudaSuccess : event->stream->drain();
}
cudaError_t cudaEventElapsedTime(float* ms, cudaEvent_t begin, cudaEvent_t end) {
  *ms = std::chrono::duration<float, std::milli>(end->at - begin->at).count();
  return cudaSuccess;
}
