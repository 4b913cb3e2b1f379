#include "backend/cuda/memory.h"

namespace llorch::cuda {

void use_device(int device) { check(cudaSetDevice(device), "the device cannot be used"); }

DeviceMemory device_memory() {
  size_t free = 0, total = 0;
  check(cudaMemGetInfo(&free, &total), "the device does not say how much memory is free");
  return {free, total};
}

namespace detail {

void* allocate_device(const MemoryUse& use, size_t bytes) {
  void* memory = nullptr;
  const cudaError_t error = fault(use.point) ? cudaErrorMemoryAllocation : cudaMalloc(&memory, bytes);
  if (error == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    const DeviceMemory left = device_memory();
    throw CodedError(ErrorCode::kVramOom,
                     fmt::format("the {} need {} bytes more of the device's memory, which cannot be allocated: {} of "
                                 "{} are free; {}",
                                 use.what, bytes, left.free, left.total, use.remedy));
  }
  check(error, "device memory was not allocated");
  return memory;
}

void* allocate_pinned(const MemoryUse& use, size_t bytes) {
  return allocate(use, bytes, [bytes] {
    void* memory = nullptr;
    const cudaError_t error = cudaHostAlloc(&memory, bytes, cudaHostAllocDefault);
    if (error == cudaErrorMemoryAllocation) {
      cudaGetLastError();
      throw std::bad_alloc();
    }
    check(error, "pinned memory was not allocated");
    return memory;
  });
}

}  // namespace detail

Stream::Stream() {
  cudaStream_t stream = nullptr;
  check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "a stream was not made");
  stream_.reset(stream);
}

void Stream::fill_bytes(void* at, int value, size_t bytes) const {
  if (bytes > 0) check(cudaMemsetAsync(at, value, bytes, get()), "device memory was not filled");
}

void Stream::copy(void* to, const void* from, size_t bytes, cudaMemcpyKind kind) const {
  if (bytes > 0) check(cudaMemcpyAsync(to, from, bytes, kind, get()), "a copy failed");
}

Event::Event(bool timed) {
  cudaEvent_t event = nullptr;
  check(cudaEventCreateWithFlags(&event, timed ? 0 : cudaEventDisableTiming), "an event was not made");
  event_.reset(event);
}

float Event::ms_since(const Event& begin) const {
  float ms = 0.0f;
  check(cudaEventElapsedTime(&ms, begin.event_.get(), event_.get()), "the device did not measure a time");
  return ms;
}

Graph Graph::end(const Stream& stream) {
  cudaGraph_t recorded = nullptr;
  check(cudaStreamEndCapture(stream.get(), &recorded), "a graph was not recorded");
  cudaGraphExec_t exec = nullptr;
  const cudaError_t error = cudaGraphInstantiate(&exec, recorded, 0);
  cudaGraphDestroy(recorded);
  check(error, "a graph was not made");
  Graph graph;
  graph.graph_.reset(exec);
  return graph;
}

void Graph::abandon(const Stream& stream) {
  cudaGraph_t recorded = nullptr;
  if (cudaStreamEndCapture(stream.get(), &recorded) == cudaSuccess) cudaGraphDestroy(recorded);
  cudaGetLastError();
}

}  // namespace llorch::cuda
