// Products of a warpgroup: d [64, N] += a [64, 16] * b [N, 16], of f16 or bf16, sums in float32. For kernels.
//
// Operands lie in shared memory as core matrices: 8 rows of 16 bytes, one behind another (128 bytes). Thread t of the
// warpgroup has of d, for each 8 columns j: rows t / 32 * 16 + t % 32 / 4 (elements 4 * j, 4 * j + 1) and 8 more
// (4 * j + 2, 4 * j + 3), in columns 8 * j + t % 4 * 2 and the next.
#pragma once

#include "backend/cuda/half_rows.h"
#include "backend/cuda/tensor_core.h"

namespace llorch::cuda {

// Where an operand lies: its first core matrix, and bytes to the next 8 rows, and to the next 8 of K.
struct CoreMatrices {
  const void* first;
  unsigned row_step, k_step;
};

#if defined(__CUDACC__)

__device__ inline uint64_t descriptor_of(const CoreMatrices& m) {
  const auto field = [](unsigned bytes) { return static_cast<uint64_t>((bytes & 0x3ffffu) >> 4); };
  return field(shared_address(m.first)) | field(m.k_step) << 16 | field(m.row_step) << 32;
}

// Before the first product, and after registers of d were touched.
__device__ inline void begin_products() {
#if LLORCH_HAS_WGMMA
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#endif
}
__device__ inline void commit_products() {
#if LLORCH_HAS_WGMMA
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
#endif
}
// Until at most so many committed groups are under way.
template <int kLeft>
__device__ void wait_for_products() {
#if LLORCH_HAS_WGMMA
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kLeft) : "memory");
#endif
}

// After wait_for_products(), for each d of theirs: to the compiler these registers had their values when the products
// were asked for, and what uses them might come before the wait.
template <int kN>
__device__ void take_sums(float (&d)[kN]) {
#pragma unroll
  for (float& x : d) asm volatile("" : "+f"(x)::"memory");
}
// A warpgroup's registers for each thread, of those that the block was started with.
template <int kCount>
__device__ void take_registers() {
#if LLORCH_HAS_WGMMA
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kCount));
#endif
}
template <int kCount>
__device__ void give_registers() {
#if LLORCH_HAS_WGMMA
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kCount));
#endif
}

#define LLORCH_R8(t) "%" #t "0,%" #t "1,%" #t "2,%" #t "3,%" #t "4,%" #t "5,%" #t "6,%" #t "7"
#define LLORCH_R10(t) LLORCH_R8(t) ",%" #t "8,%" #t "9"
#define LLORCH_FIRST10 "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9"
#define LLORCH_R50(a, b, c, d, e) LLORCH_R10(a) "," LLORCH_R10(b) "," LLORCH_R10(c) "," LLORCH_R10(d) "," LLORCH_R10(e)
#define LLORCH_FIRST60 LLORCH_FIRST10 "," LLORCH_R50(1, 2, 3, 4, 5)
#define LLORCH_SECOND60 LLORCH_R10(6) "," LLORCH_R50(7, 8, 9, 10, 11)
#define LLORCH_D4(i) "+f"(d[i]), "+f"(d[(i) + 1]), "+f"(d[(i) + 2]), "+f"(d[(i) + 3])
#define LLORCH_D8(i) LLORCH_D4(i), LLORCH_D4((i) + 4)
#define LLORCH_D32(i) LLORCH_D8(i), LLORCH_D8((i) + 8), LLORCH_D8((i) + 16), LLORCH_D8((i) + 24)
#define LLORCH_WGMMA(n, type, registers, a, b, adds, ...)                                                        \
  asm volatile("{\n.reg .pred adds;\nsetp.ne.b32 adds, %" #adds                                                  \
               ", 0;\n"                                                                                          \
               "wgmma.mma_async.sync.aligned.m64n" #n "k16.f32." type "." type " {" registers "}, %" #a ", %" #b \
               ", adds, 1, 1, 0, 0;\n}"                                                                          \
               : __VA_ARGS__                                                                                     \
               : "l"(descriptor_of(x)), "l"(descriptor_of(y)), "r"(keeps ? 1 : 0))
#define LLORCH_WGMMA_N(type)                                                                                          \
  if constexpr (kN == 32)                                                                                             \
    LLORCH_WGMMA(32, type, LLORCH_FIRST10 ",%10,%11,%12,%13,%14,%15", 16, 17, 18, LLORCH_D8(0), LLORCH_D8(8));        \
  if constexpr (kN == 64)                                                                                             \
    LLORCH_WGMMA(64, type, LLORCH_FIRST10 "," LLORCH_R10(1) "," LLORCH_R10(2) ",%30,%31", 32, 33, 34, LLORCH_D32(0)); \
  if constexpr (kN == 96)                                                                                             \
    LLORCH_WGMMA(96, type,                                                                                            \
                 LLORCH_FIRST10                                                                                       \
                 "," LLORCH_R10(1) "," LLORCH_R10(2) "," LLORCH_R10(3) ",%40,%41,%42,%43,%44,%45,%46,%47",            \
                 48, 49, 50, LLORCH_D32(0), LLORCH_D8(32), LLORCH_D8(40));                                            \
  if constexpr (kN == 128)                                                                                            \
    LLORCH_WGMMA(128, type, LLORCH_FIRST60 ",%60,%61,%62,%63", 64, 65, 66, LLORCH_D32(0), LLORCH_D32(32));            \
  if constexpr (kN == 256)                                                                                            \
  LLORCH_WGMMA(256, type, LLORCH_FIRST60 "," LLORCH_SECOND60 "," LLORCH_R8(12), 128, 129, 130, LLORCH_D32(0),         \
               LLORCH_D32(32), LLORCH_D32(64), LLORCH_D32(96))

// d += x y (d = x y where it does not keep what it has). Asynchronous.
template <DType kType, int kN>
__device__ inline void multiply(float (&d)[kN / 2], const CoreMatrices& x, const CoreMatrices& y, bool keeps) {
#if LLORCH_HAS_WGMMA
  if constexpr (kType == DType::kBF16) {
    LLORCH_WGMMA_N("bf16");
  } else {
    LLORCH_WGMMA_N("f16");
  }
#endif
}

#define LLORCH_WGMMA_A(n, registers, a0, a1, a2, a3, b, adds, transposes, ...)                                    \
  asm volatile("{\n.reg .pred adds;\nsetp.ne.b32 adds, %" #adds                                                   \
               ", 0;\n"                                                                                           \
               "wgmma.mma_async.sync.aligned.m64n" #n "k16.f32.f16.f16 {" registers "}, {%" #a0 ",%" #a1 ",%" #a2 \
               ",%" #a3 "}, %" #b ", adds, 1, 1, %" #transposes ";\n}"                                            \
               : __VA_ARGS__                                                                                      \
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(descriptor_of(y)), "r"(keeps ? 1 : 0),           \
                 "n"(kTransposed ? 1 : 0))

// The same of f16, where a lies in registers: thread t has rows as above, elements t % 4 * 2 and the next (a[0] of the
// first row, a[1] of the other), and eight further on (a[2], a[3]). kTransposed: core matrices of y are 8 of K by 8 of
// N, each of K 16 bytes. Make a anew for each product: ptxas 13.0 gave the registers of an a that a loop reads again
// and again to others inside that loop.
template <int kN, bool kTransposed>
__device__ inline void multiply(float (&d)[kN / 2], const unsigned (&a)[4], const CoreMatrices& y, bool keeps) {
#if LLORCH_HAS_WGMMA
  if constexpr (kN == 32)
    LLORCH_WGMMA_A(32, LLORCH_FIRST10 ",%10,%11,%12,%13,%14,%15", 16, 17, 18, 19, 20, 21, 22, LLORCH_D8(0),
                   LLORCH_D8(8));
  if constexpr (kN == 64)
    LLORCH_WGMMA_A(64, LLORCH_FIRST10 "," LLORCH_R10(1) "," LLORCH_R10(2) ",%30,%31", 32, 33, 34, 35, 36, 37, 38,
                   LLORCH_D32(0));
  if constexpr (kN == 96)
    LLORCH_WGMMA_A(96, LLORCH_FIRST10 "," LLORCH_R10(1) "," LLORCH_R10(2) "," LLORCH_R10(3) "," LLORCH_R8(4), 48, 49,
                   50, 51, 52, 53, 54, LLORCH_D32(0), LLORCH_D8(32), LLORCH_D8(40));
  if constexpr (kN == 128)
    LLORCH_WGMMA_A(128, LLORCH_FIRST60 ",%60,%61,%62,%63", 64, 65, 66, 67, 68, 69, 70, LLORCH_D32(0), LLORCH_D32(32));
#endif
}

// What threads have written to shared memory, their copies too, is what products read: before the barrier between.
__device__ inline void publish_to_products() {
#if LLORCH_HAS_WGMMA
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
#endif
}

#else

inline void begin_products() {}
inline void commit_products() {}
template <int kLeft>
void wait_for_products() {}
template <int kCount>
void take_registers() {}
template <int kCount>
void give_registers() {}
template <typename T>
void take_sums(T&) {}
inline void publish_to_products() {}

template <DType kType, int kN>
void multiply(float (&d)[kN / 2], const CoreMatrices& x, const CoreMatrices& y, bool keeps) {
  const auto load = [](const CoreMatrices& m, int row, float(&k)[16]) {
    for (int i = 0; i < 16; ++i) {
      const auto* core = static_cast<const unsigned char*>(m.first) + row / 8 * m.row_step + i / 8 * m.k_step;
      k[i] = widen_half(kType, reinterpret_cast<const uint16_t*>(core + row % 8 * 16)[i % 8]);
    }
  };
  const int t = static_cast<int>(threadIdx.x) % kWarpgroup, row = t / 32 * 16 + t % 32 / 4;
  float rows[2][16], column[16];
  load(x, row, rows[0]);
  load(x, row + 8, rows[1]);
  for (int c = 0; c < kN / 4; ++c) {
    load(y, c / 2 * 8 + t % 4 * 2 + c % 2, column);
    for (int half = 0; half < 2; ++half) {
      float& sum = d[c / 2 * 4 + half * 2 + c % 2];
      if (!keeps) sum = 0.0f;
      for (int k = 0; k < 16; ++k) sum += rows[half][k] * column[k];
    }
  }
}

template <int kN, bool kTransposed>
void multiply(float (&d)[kN / 2], const unsigned (&a)[4], const CoreMatrices& y, bool keeps) {
  const unsigned mine[4] = {a[0], a[1], a[2], a[3]};
  const void* const* all = cuda_emulator::share(mine);
  const int row = lane_id() / 4;
  float rows[2][16];
  for (int half = 0; half < 2; ++half)
    for (int k = 0; k < 16; ++k) {
      const unsigned word = static_cast<const unsigned*>(all[row * 4 + k % 8 / 2])[half + k / 8 * 2];
      rows[half][k] = widen_half(DType::kF16, static_cast<uint16_t>(word >> k % 2 * 16));
    }
  __syncwarp();
  for (int c = 0; c < kN / 4; ++c) {
    const int n = c / 2 * 8 + lane_id() % 4 * 2 + c % 2;
    for (int half = 0; half < 2; ++half) {
      float& sum = d[c / 2 * 4 + half * 2 + c % 2];
      if (!keeps) sum = 0.0f;
      for (int k = 0; k < 16; ++k) {
        const auto* core = static_cast<const unsigned char*>(y.first) + n / 8 * y.row_step + k / 8 * y.k_step;
        const auto* element = kTransposed ? core + k % 8 * 16 + n % 8 * 2 : core + n % 8 * 16 + k % 8 * 2;
        sum += rows[half][k] * widen_half(DType::kF16, *reinterpret_cast<const uint16_t*>(element));
      }
    }
  }
}

#endif

}  // namespace llorch::cuda
