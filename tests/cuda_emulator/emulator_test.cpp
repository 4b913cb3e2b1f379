// What the emulated GPU must find: races that depend on an order, barriers that not all reach, writes out of bounds,
// host memory that is used too early.
#include <cuda_runtime.h>
#include <gtest/gtest.h>

#include <memory>
#include <vector>

namespace {

template <typename... Parameters, typename... Arguments>
cudaError_t run(int device, dim3 grid, dim3 block, size_t shared, void (*kernel)(Parameters...),
                Arguments... arguments) {
  cudaSetDevice(device);
  cudaStream_t stream = nullptr;
  cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking);
  cudaLaunchConfig_t config = {};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = shared;
  config.stream = stream;
  cudaError_t error = cudaLaunchKernelEx(&config, kernel, arguments...);
  if (error == cudaSuccess) error = cudaStreamSynchronize(stream);
  cudaStreamDestroy(stream);
  cudaGetLastError();
  return error;
}

struct Free {
  void operator()(int* memory) const { cudaFree(memory); }
};
std::unique_ptr<int, Free> device_ints(size_t n) {
  void* memory = nullptr;
  cudaMalloc(&memory, n * sizeof(int));
  return std::unique_ptr<int, Free>(static_cast<int*>(memory));
}

// Each thread gives its number to its right neighbour; forgets_barrier: without waiting.
void pass_on(int* out, bool forgets_barrier) {
  int* shared = reinterpret_cast<int*>(cuda_emulator::dynamic_shared());
  const int t = static_cast<int>(threadIdx.x), n = static_cast<int>(blockDim.x);
  shared[t] = t;
  if (!forgets_barrier) __syncthreads();
  out[t] = shared[(t + n - 1) % n];
}

bool passes_on(int device, bool forgets_barrier) {
  constexpr int kN = 96;
  const auto out = device_ints(kN);
  EXPECT_EQ(run(device, 1, kN, kN * sizeof(int), pass_on, out.get(), forgets_barrier), cudaSuccess);
  for (int t = 0; t < kN; ++t)
    if (out.get()[t] != (t + kN - 1) % kN) return false;
  return true;
}

TEST(CudaEmulator, AMissingBarrierShowsInEveryOrder) {
  for (const int device : {0, 1, 2}) {
    EXPECT_TRUE(passes_on(device, false)) << device;
    EXPECT_FALSE(passes_on(device, true)) << device;
  }
}

void exchange_lanes(int* out) {
  const int t = static_cast<int>(threadIdx.x);
  int value = t;
  for (int width = 16; width > 0; width /= 2) value += __shfl_xor_sync(0xffffffffu, value, width);
  out[t] = value;
}

TEST(CudaEmulator, LanesOfAWarpExchangeValues) {
  const auto out = device_ints(64);
  for (const int device : {0, 1, 2}) {
    ASSERT_EQ(run(device, 1, 64, 0, exchange_lanes, out.get()), cudaSuccess);
    EXPECT_EQ(out.get()[5], 31 * 32 / 2);
    EXPECT_EQ(out.get()[40], 31 * 32 / 2 + 32 * 32);
  }
}

void half_waits() {
  if (threadIdx.x < 16) __syncthreads();
}
void half_exchanges() {
  if (threadIdx.x < 16) __syncwarp();
}
void writes_behind_shared_memory() { cuda_emulator::dynamic_shared()[100] = 1; }
void writes_at(int* memory, int at) { memory[at] = 7; }

TEST(CudaEmulator, FaultsAreFoundAndTheNextKernelRuns) {
  EXPECT_EQ(run(0, 1, 32, 0, half_waits), cudaErrorLaunchFailure);
  EXPECT_EQ(run(0, 1, 32, 0, half_exchanges), cudaErrorLaunchFailure);
  EXPECT_EQ(run(0, 1, 1, 100, writes_behind_shared_memory), cudaErrorLaunchFailure);
  EXPECT_EQ(run(0, 1, 2048, 0, half_waits), cudaErrorInvalidConfiguration);
  EXPECT_TRUE(passes_on(0, false));
}

TEST(CudaEmulator, AWriteOutOfBoundsIsFound) {
  const auto memory = device_ints(10);
  EXPECT_EQ(run(0, 1, 1, 0, writes_at, memory.get(), 9), cudaSuccess);
  EXPECT_EQ(run(0, 1, 1, 0, writes_at, memory.get(), 10), cudaErrorIllegalAddress);
  memory.get()[10] = -1;  // as it was
  EXPECT_EQ(run(0, 1, 1, 0, writes_at, memory.get(), 0), cudaSuccess);
}

TEST(CudaEmulator, ACopyTakesWhatTheHostHasWhenItRuns) {
  const auto memory = device_ints(1);
  cudaStream_t stream = nullptr;
  cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking);
  int host = 1;
  cudaMemcpyAsync(memory.get(), &host, sizeof host, cudaMemcpyHostToDevice, stream);
  host = 2;  // too early
  cudaStreamSynchronize(stream);
  EXPECT_EQ(*memory, 2);
  cudaStreamDestroy(stream);
}

TEST(CudaEmulator, Dp2aMultipliesTwoInt16ByTwoBytes) {
  const int a = (-300 << 16) | 1000, b = static_cast<int>(0x80ff7f02u);
  EXPECT_EQ(__dp2a_lo(a, b, 5), 5 + 1000 * 2 + -300 * 127);
  EXPECT_EQ(__dp2a_hi(a, b, 5), 5 + 1000 * -1 + -300 * -128);
}

}  // namespace
