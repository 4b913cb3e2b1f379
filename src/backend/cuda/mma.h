// Products of a warp on tensor cores, and the loads that fill their registers: compute capability 8.0 and newer, and a
// twin in C++ for the emulator. For kernels.
//
// c [16, 8] += a [16, 16] * b [8, 16], of f16 or bf16, sums in float32. Lane l has of c rows l / 4 (c[0], c[1]) and l /
// 4 + 8 (c[2], c[3]), columns l % 4 * 2 and the next.
#pragma once

#include "backend/cuda/half_rows.h"

namespace llorch::cuda {

#if defined(__CUDACC__)

#define LLORCH_MMA(type)                                              \
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32." type "." type \
               ".f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "         \
               "{%0,%1,%2,%3};"                                       \
               : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])       \
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1))

template <DType kType = DType::kF16>
__device__ void multiply_add(float (&c)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
#if defined(__CUDA_ARCH__)
  if constexpr (kType == DType::kBF16)
    LLORCH_MMA("bf16");
  else
    LLORCH_MMA("f16");
#endif
}

// Four matrices of eight rows of 16 bytes in shared memory: lane l says where row l % 8 of matrix l / 8 lies, and gets
// of each its elements l % 4 * 2 and the next of row l / 4; transposed: of column l / 4.
template <bool kTransposed>
__device__ void load_matrices(unsigned (&out)[4], const void* row) {
#if defined(__CUDA_ARCH__)
  const auto address = static_cast<unsigned>(__cvta_generic_to_shared(row));
  if constexpr (kTransposed)
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
                 : "r"(address)
                 : "memory");
  else
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
                 : "r"(address)
                 : "memory");
#endif
}

#else

template <DType kType = DType::kF16>
void multiply_add(float (&c)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
  const unsigned mine[6] = {a[0], a[1], a[2], a[3], b0, b1};
  const void* const* all = cuda_emulator::share(mine);
  // Element k of a row of a, and of a row of b: words of the four lanes that have the row.
  const auto element = [&](int row, int k, int word) {
    const unsigned both = static_cast<const unsigned*>(all[row * 4 + k % 8 / 2])[word];
    return widen_half(kType, static_cast<uint16_t>(both >> k % 2 * 16));
  };
  float rows[2][16], columns[2][16];
  for (int i = 0; i < 2; ++i)
    for (int k = 0; k < 16; ++k) {
      rows[i][k] = element(lane_id() / 4, k, i + k / 8 * 2);
      columns[i][k] = element(lane_id() % 4 * 2 + i, k, 4 + k / 8);
    }
  float sums[4];
  for (int i = 0; i < 4; ++i) {
    sums[i] = c[i];
    for (int k = 0; k < 16; ++k) sums[i] += rows[i / 2][k] * columns[i % 2][k];
  }
  __syncwarp();
  for (int i = 0; i < 4; ++i) c[i] = sums[i];
}

template <bool kTransposed>
void load_matrices(unsigned (&out)[4], const void* row) {
  const void* const* rows = cuda_emulator::share(row);
  const int first = lane_id() / 4, second = lane_id() % 4 * 2;
  for (int m = 0; m < 4; ++m) {
    const auto element = [&](int r, int column) {
      return unsigned{static_cast<const uint16_t*>(rows[m * 8 + r])[column]};
    };
    out[m] = kTransposed ? element(second, first) | element(second + 1, first) << 16
                         : element(first, second) | element(first, second + 1) << 16;
  }
  __syncwarp();
}

#endif

}  // namespace llorch::cuda
