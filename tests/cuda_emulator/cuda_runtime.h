// The part of CUDA's runtime and device language that backend/cuda uses, in plain C++: its sources include
// <cuda_runtime.h> and, compiled as C++ with this folder in front, run on the CPU. Kernels run on fibers
// (executor.h); streams are queues that run when somebody waits for them (runtime.cpp).
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <numeric>
#include <tuple>
#include <utility>

#include "executor.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __noinline__
#define __launch_bounds__(...)
#define __grid_constant__

struct alignas(8) int2 {
  int x, y;
};
struct alignas(8) uint2 {
  unsigned x, y;
};
struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) int4 {
  int x, y, z, w;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

// threadIdx.x and its kin: objects and no macros, because launch configurations have fields of these names.
namespace cuda_emulator {
template <auto kIndex, auto kAxis>
struct Coordinate {
  operator unsigned() const { return (lane().*kIndex).*kAxis; }
};
template <auto kIndex>
struct Index {
  [[no_unique_address]] Coordinate<kIndex, &dim3::x> x;
  [[no_unique_address]] Coordinate<kIndex, &dim3::y> y;
  [[no_unique_address]] Coordinate<kIndex, &dim3::z> z;
};
}  // namespace cuda_emulator
inline constexpr cuda_emulator::Index<&cuda_emulator::Lane::thread_index> threadIdx{};
inline constexpr cuda_emulator::Index<&cuda_emulator::Lane::block_index> blockIdx{};
inline constexpr cuda_emulator::Index<&cuda_emulator::Lane::block_size> blockDim{};
inline constexpr cuda_emulator::Index<&cuda_emulator::Lane::grid_size> gridDim{};

// Device functions.
inline void __syncthreads() { cuda_emulator::block_barrier(); }
inline void __syncwarp() { cuda_emulator::exchange(0); }
inline void __threadfence() {}
template <typename T>
T __shfl_sync(unsigned, T value, int source) {
  static_assert(sizeof(T) == 4);
  return std::bit_cast<T>(cuda_emulator::exchange(std::bit_cast<uint32_t>(value))[source & 31]);
}
template <typename T>
T __shfl_xor_sync(unsigned mask, T value, int by) {
  return __shfl_sync(mask, value, (cuda_emulator::lane().lane ^ by) & 31);
}
template <typename T>
T __shfl_down_sync(unsigned mask, T value, int by) {
  const int source = cuda_emulator::lane().lane + by;
  return __shfl_sync(mask, value, source < 32 ? source : cuda_emulator::lane().lane);
}
// One exchange, not five: exchanges are most of an emulated kernel's time.
inline int __reduce_add_sync(unsigned, int value) {
  const uint32_t* all = cuda_emulator::exchange(std::bit_cast<uint32_t>(value));
  return std::bit_cast<int>(std::accumulate(all, all + 32, 0u));
}
inline unsigned __reduce_max_sync(unsigned, unsigned value) {
  const uint32_t* all = cuda_emulator::exchange(value);
  return *std::max_element(all, all + 32);
}
inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __fdividef(float a, float b) { return a / b; }
inline float __frcp_rn(float a) { return 1.0f / a; }
inline float __fsqrt_rn(float a) { return std::sqrt(a); }
inline float __int2float_rn(int a) { return static_cast<float>(a); }
inline int __float2int_rn(float a) { return static_cast<int>(std::nearbyint(a)); }
inline int __clzll(long long a) { return std::countl_zero(static_cast<unsigned long long>(a)); }
inline float __uint_as_float(unsigned a) { return std::bit_cast<float>(a); }
inline unsigned __float_as_uint(float a) { return std::bit_cast<unsigned>(a); }
// Byte i of the result is the one of b:a that nibble i of the selector names.
inline unsigned __byte_perm(unsigned a, unsigned b, unsigned selector) {
  const uint64_t bytes = uint64_t{b} << 32 | a;
  unsigned out = 0;
  for (int i = 0; i < 4; ++i) out |= static_cast<unsigned>(bytes >> (selector >> 4 * i & 7u) * 8 & 0xffu) << 8 * i;
  return out;
}
// Two of a's int16 times bytes 0 and 1 (lo) or 2 and 3 (hi) of b, plus c.
inline int __dp2a_lo(int a, int b, int c) {
  return c + static_cast<int16_t>(a) * static_cast<int8_t>(b) + (a >> 16) * static_cast<int8_t>(b >> 8);
}
inline int __dp2a_hi(int a, int b, int c) { return __dp2a_lo(a, b >> 16, c); }
template <typename T>
T __ldcg(const T* p) {
  return *p;
}
template <typename T>
T __ldcs(const T* p) {
  return *p;
}
template <typename T>
T __ldg(const T* p) {
  return *p;
}
template <typename T>
void __stcg(T* p, const T& value) {
  *p = value;
}
inline unsigned atomicAdd(unsigned* at, unsigned by) {
  const unsigned before = *at;
  *at += by;
  return before;
}
inline unsigned atomicMax(unsigned* at, unsigned value) {
  const unsigned before = *at;
  if (value > before) *at = value;
  return before;
}

// Runtime.
enum cudaError_t {
  cudaSuccess = 0,
  cudaErrorInvalidValue = 1,
  cudaErrorMemoryAllocation = 2,
  cudaErrorInvalidConfiguration = 9,
  cudaErrorInsufficientDriver = 35,
  cudaErrorNoDevice = 100,
  cudaErrorInvalidDevice = 101,
  cudaErrorECCUncorrectable = 214,
  cudaErrorInvalidResourceHandle = 400,
  cudaErrorIllegalAddress = 700,
  cudaErrorLaunchOutOfResources = 701,
  cudaErrorLaunchTimeout = 702,
  cudaErrorAssert = 710,
  cudaErrorHardwareStackError = 714,
  cudaErrorIllegalInstruction = 715,
  cudaErrorMisalignedAddress = 716,
  cudaErrorInvalidAddressSpace = 717,
  cudaErrorInvalidPc = 718,
  cudaErrorLaunchFailure = 719,
  cudaErrorDevicesUnavailable = 46,
  cudaErrorUnknown = 999,
};
enum cudaMemcpyKind { cudaMemcpyHostToDevice = 1, cudaMemcpyDeviceToHost = 2, cudaMemcpyDeviceToDevice = 3 };
enum cudaStreamCaptureMode { cudaStreamCaptureModeThreadLocal = 1 };
inline constexpr unsigned cudaStreamNonBlocking = 1, cudaEventDisableTiming = 2, cudaHostAllocDefault = 0;

namespace cuda_emulator {
class Stream;
class Graph;
struct Event;
}  // namespace cuda_emulator
using cudaStream_t = cuda_emulator::Stream*;
using cudaGraph_t = cuda_emulator::Graph*;
using cudaGraphExec_t = cuda_emulator::Graph*;
using cudaEvent_t = cuda_emulator::Event*;

struct cudaDeviceProp {
  char name[256];
  int major, minor, multiProcessorCount, l2CacheSize;
  size_t totalGlobalMem, sharedMemPerBlockOptin, sharedMemPerMultiprocessor;
};
enum cudaLaunchAttributeID {
  cudaLaunchAttributeProgrammaticStreamSerialization = 6,
  cudaLaunchAttributePreferredSharedMemoryCarveout = 14,
};
struct cudaLaunchAttribute {
  cudaLaunchAttributeID id;
  struct {
    int programmaticStreamSerializationAllowed;
    unsigned sharedMemCarveout;
  } val;
};
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize = 8 };
struct cudaLaunchConfig_t {
  dim3 gridDim, blockDim;
  size_t dynamicSmemBytes = 0;
  cudaStream_t stream = nullptr;
  cudaLaunchAttribute* attrs = nullptr;
  unsigned numAttrs = 0;
};

const char* cudaGetErrorName(cudaError_t error);
const char* cudaGetErrorString(cudaError_t error);
cudaError_t cudaGetLastError();
cudaError_t cudaGetDeviceCount(int* count);
cudaError_t cudaSetDevice(int device);
cudaError_t cudaDriverGetVersion(int* version);
cudaError_t cudaRuntimeGetVersion(int* version);
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device);
cudaError_t cudaMemGetInfo(size_t* free, size_t* total);
cudaError_t cudaMalloc(void** memory, size_t bytes);
cudaError_t cudaFree(void* memory);
cudaError_t cudaHostAlloc(void** memory, size_t bytes, unsigned flags);
cudaError_t cudaFreeHost(void* memory);
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind, cudaStream_t stream);
cudaError_t cudaMemsetAsync(void* at, int value, size_t bytes, cudaStream_t stream);
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags);
cudaError_t cudaStreamDestroy(cudaStream_t stream);
cudaError_t cudaStreamSynchronize(cudaStream_t stream);
cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode);
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph);
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* exec, cudaGraph_t graph, unsigned long long flags);
cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream);
cudaError_t cudaGraphDestroy(cudaGraph_t graph);
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec);
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags);
cudaError_t cudaEventDestroy(cudaEvent_t event);
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream);
cudaError_t cudaEventSynchronize(cudaEvent_t event);
cudaError_t cudaEventElapsedTime(float* ms, cudaEvent_t begin, cudaEvent_t end);

namespace cuda_emulator {
cudaError_t enqueue_kernel(const cudaLaunchConfig_t& config, const void* kernel, std::function<void()> call);
cudaError_t allow_shared(const void* kernel, size_t bytes);  // of a kernel's blocks on the current device
size_t pinned_bytes();                                       // of host memory, allocated now
}  // namespace cuda_emulator

template <typename... Parameters>
cudaError_t cudaFuncSetAttribute(void (*kernel)(Parameters...), cudaFuncAttribute, int bytes) {
  return cuda_emulator::allow_shared(reinterpret_cast<const void*>(kernel), static_cast<size_t>(bytes));
}

template <typename... Parameters, typename... Arguments>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...),
                               Arguments&&... arguments) {
  std::tuple<std::decay_t<Parameters>...> values(std::forward<Arguments>(arguments)...);  // by value, as on a device
  return cuda_emulator::enqueue_kernel(*config, reinterpret_cast<const void*>(kernel),
                                       [kernel, values] { std::apply(kernel, values); });
}
