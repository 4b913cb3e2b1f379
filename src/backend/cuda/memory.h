// Device memory, pinned host memory, streams and graphs, each owned by one object.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <memory>

#include "backend/cuda/errors.h"
#include "backend/memory.h"

namespace llorch::cuda {

// Makes a device the current one of this thread; each entry into the backend begins with it.
void use_device(int device);

DeviceMemory device_memory();  // of the current device

namespace detail {
struct FreeDevice {
  void operator()(void* memory) const { cudaFree(memory); }
};
struct FreePinned {
  void operator()(void* memory) const { cudaFreeHost(memory); }
};
void* allocate_device(const MemoryUse& use, size_t bytes);
void* allocate_pinned(const MemoryUse& use, size_t bytes);
}  // namespace detail

// An array in the memory of the device that was current when it was made. Its contents are not initialized. Throws a
// CodedError of VRAM_OOM: for what, how many bytes, how many are free.
template <typename T>
class DeviceArray {
 public:
  DeviceArray() = default;
  DeviceArray(const MemoryUse& use, size_t n)
      : memory_(n == 0 ? nullptr : detail::allocate_device(use, n * sizeof(T))), n_(n) {}

  T* data() { return static_cast<T*>(memory_.get()); }
  const T* data() const { return static_cast<const T*>(memory_.get()); }
  size_t size() const { return n_; }
  size_t bytes() const { return n_ * sizeof(T); }

 private:
  std::unique_ptr<void, detail::FreeDevice> memory_;
  size_t n_ = 0;
};

// The same in host memory that copies to and from the device can run beside.
template <typename T>
class PinnedArray {
 public:
  PinnedArray() = default;
  PinnedArray(const MemoryUse& use, size_t n)
      : memory_(n == 0 ? nullptr : detail::allocate_pinned(use, n * sizeof(T))), n_(n) {}

  T* data() { return static_cast<T*>(memory_.get()); }
  const T* data() const { return static_cast<const T*>(memory_.get()); }
  size_t size() const { return n_; }
  size_t bytes() const { return n_ * sizeof(T); }

 private:
  std::unique_ptr<void, detail::FreePinned> memory_;
  size_t n_ = 0;
};

namespace detail {
struct DestroyStream {
  void operator()(cudaStream_t s) const { cudaStreamDestroy(s); }
};
struct DestroyEvent {
  void operator()(cudaEvent_t e) const { cudaEventDestroy(e); }
};
struct DestroyGraph {
  void operator()(cudaGraphExec_t g) const { cudaGraphExecDestroy(g); }
};
template <typename Handle, typename Destroy>
using Owned = std::unique_ptr<std::remove_pointer_t<Handle>, Destroy>;
}  // namespace detail

// Work in order, on the device that was current when it was made.
class Stream {
 public:
  Stream();
  cudaStream_t get() const { return stream_.get(); }
  void synchronize() const { check(cudaStreamSynchronize(get()), "the device failed"); }

  template <typename T>
  void to_device(T* to, const T* from, size_t n) const {
    copy(to, from, n * sizeof(T), cudaMemcpyHostToDevice);
  }
  template <typename T>
  void to_host(T* to, const T* from, size_t n) const {
    copy(to, from, n * sizeof(T), cudaMemcpyDeviceToHost);
  }
  void fill_bytes(void* at, int value, size_t bytes) const;

 private:
  void copy(void* to, const void* from, size_t bytes, cudaMemcpyKind kind) const;
  detail::Owned<cudaStream_t, detail::DestroyStream> stream_;
};

// A moment in a stream.
class Event {
 public:
  explicit Event(bool timed = false);
  void record(const Stream& stream) { check(cudaEventRecord(event_.get(), stream.get()), "an event was not recorded"); }
  void wait() const { check(cudaEventSynchronize(event_.get()), "the device failed"); }
  float ms_since(const Event& begin) const;  // both timed and passed

 private:
  detail::Owned<cudaEvent_t, detail::DestroyEvent> event_;
};

// Work that is recorded once and then launched as a whole.
class Graph {
 public:
  // Records what `enqueue` puts into the stream; nothing of it runs.
  template <typename Enqueue>
  static Graph record(const Stream& stream, Enqueue enqueue) {
    check(cudaStreamBeginCapture(stream.get(), cudaStreamCaptureModeThreadLocal), "a graph was not begun");
    try {
      enqueue();
    } catch (...) {
      abandon(stream);
      throw;
    }
    return end(stream);
  }
  void launch(const Stream& stream) const {
    check(cudaGraphLaunch(graph_.get(), stream.get()), "a graph could not be launched");
  }

 private:
  static Graph end(const Stream& stream);
  static void abandon(const Stream& stream);
  detail::Owned<cudaGraphExec_t, detail::DestroyGraph> graph_;
};

}  // namespace llorch::cuda
