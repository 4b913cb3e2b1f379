// Rotation of a pair, and keys and values into their pages. For kernels.
#pragma once

#include "backend/cuda/device_code.h"
#include "backend/cuda/kernels.h"

namespace llorch::cuda {

// Elements of a head that form pair i.
struct Pair {
  int first, second;
};
__device__ inline Pair pair_of(RopePairs pairs, int half, int i) {
  return pairs == RopePairs::kInterleaved ? Pair{2 * i, 2 * i + 1} : Pair{i, i + half};
}

__device__ inline void rotate(float& a, float& b, float cos, float sin) {
  const float rotated_a = __fmaf_rn(a, cos, -__fmul_rn(b, sin));
  const float rotated_b = __fmaf_rn(a, sin, __fmul_rn(b, cos));
  a = rotated_a;
  b = rotated_b;
}

// keys, values: of one head in one page.
__device__ inline void store_key(const KvView& kv, std::byte* keys, int in_page, int d, float key) {
  const int page_size = 1 << kv.page_shift;
  if (kv.is_f16)
    reinterpret_cast<uint16_t*>(keys)[(d / 8 * page_size + in_page) * 8 + d % 8] = f32_to_f16_saturate(key);
  else
    reinterpret_cast<float*>(keys)[(d / 4 * page_size + in_page) * 4 + d % 4] = key;
}
__device__ inline void store_value(const KvView& kv, std::byte* values, int in_page, int d, float value) {
  const int at = in_page * kv.head_dim + d;
  if (kv.is_f16)
    reinterpret_cast<uint16_t*>(values)[at] = f32_to_f16_saturate(value);
  else
    reinterpret_cast<float*>(values)[at] = value;
}

}  // namespace llorch::cuda
