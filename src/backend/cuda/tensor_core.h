// What Hopper's matrix units need, as thin functions: barriers in shared memory that count bytes, bulk copies into
// shared memory, and products of a warpgroup (four warps). For kernels.
//
// Each is one PTX instruction where code is made for compute capability 9.0a, and a few lines of C++ in the emulator.
// Elsewhere they trap: the host asks for them on such devices only (has_tensor_cores()).
#pragma once

#include "backend/cuda/device_code.h"

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define LLORCH_HAS_WGMMA 1
#else
#define LLORCH_HAS_WGMMA 0
#endif

namespace llorch::cuda {

inline constexpr int kWarpgroup = 4 * kWarp;

// A barrier of shared memory: a phase ends when so many threads have arrived as init_barrier() said, and all bytes have
// come that were expected.
struct alignas(8) Barrier {
#if defined(__CUDACC__)
  uint64_t state;
#else
  uint8_t phase, arrivals, pending, unused;
  int32_t bytes;
#endif
};

#if defined(__CUDACC__)

__device__ inline unsigned shared_address(const void* p) { return static_cast<unsigned>(__cvta_generic_to_shared(p)); }

__device__ inline void init_barrier(Barrier& b, unsigned arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(&b)), "r"(arrivals) : "memory");
}
// After the block's barriers were made, before its threads meet.
__device__ inline void publish_barriers() {
#if LLORCH_HAS_WGMMA
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
#endif
}
__device__ inline void arrive(Barrier& b) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(&b)) : "memory");
}
// Arrives, and expects so many bytes in this phase.
__device__ inline void arrive_and_expect(Barrier& b, unsigned bytes) {
#if LLORCH_HAS_WGMMA
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(&b)), "r"(bytes)
               : "memory");
#endif
}
// Until the phase of this parity (0 for the first) is over.
__device__ inline void wait_for(Barrier& b, unsigned parity) {
#if LLORCH_HAS_WGMMA
  asm volatile(
      "{\n.reg .pred done;\n"
      "again:\nmbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
      "@done bra over;\nbra again;\nover:\n}" ::"r"(shared_address(&b)),
      "r"(parity)
      : "memory");
#endif
}
// bytes: a multiple of 16, as are both addresses.
__device__ inline void copy_bulk(void* shared, const void* global, unsigned bytes, Barrier& b) {
#if LLORCH_HAS_WGMMA
  asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(
                   shared_address(shared)),
               "l"(__cvta_generic_to_global(global)), "r"(bytes), "r"(shared_address(&b))
               : "memory");
#endif
}

#else

inline void init_barrier(Barrier& b, unsigned arrivals) {
  b = {0, static_cast<uint8_t>(arrivals), static_cast<uint8_t>(arrivals), 0, 0};
}
inline void publish_barriers() {}
inline void end_phase_if_complete(Barrier& b) {
  if (b.pending != 0 || b.bytes != 0) return;
  b.phase ^= 1;
  b.pending = b.arrivals;
}
inline void arrive(Barrier& b) {
  --b.pending;
  cuda_emulator::progress();
  end_phase_if_complete(b);
}
inline void arrive_and_expect(Barrier& b, unsigned bytes) {
  b.bytes += static_cast<int32_t>(bytes);
  arrive(b);
}
inline void wait_for(Barrier& b, unsigned parity) {
  if (b.phase != (parity & 1u)) return;
  do cuda_emulator::poll();
  while (b.phase == (parity & 1u));
  cuda_emulator::progress();
}
inline void copy_bulk(void* shared, const void* global, unsigned bytes, Barrier& b) {
  std::memcpy(shared, global, bytes);
  b.bytes -= static_cast<int32_t>(bytes);
  cuda_emulator::progress();
  end_phase_if_complete(b);
}

#endif

}  // namespace llorch::cuda
