// Keys and values into their pages (KvView says how they lie there), and out of them. For kernels.
#pragma once

#include "backend/cuda/device_code.h"
#include "backend/cuda/kernels.h"

namespace llorch::cuda {

// Keys, then values, of one head in one page.
__device__ inline std::byte* head_in_page(const KvView& kv, int kv_head, uint32_t page) {
  return kv.memory + size_t{page} * kv.page_bytes + size_t(kv_head) * 2 * kv.half_bytes;
}

// keys, values: of one head in one page. The next two are for f16 and f32, whose elements go one by one.
__device__ inline void store_key(const KvView& kv, std::byte* keys, int in_page, int d, float key) {
  const int page_size = 1 << kv.page_shift;
  if (kv.dtype == DType::kF16)
    reinterpret_cast<uint16_t*>(keys)[(d / 8 * page_size + in_page) * 8 + d % 8] = narrow_f16(key);
  else
    reinterpret_cast<float*>(keys)[(d / 4 * page_size + in_page) * 4 + d % 4] = key;
}
__device__ inline void store_value(const KvView& kv, std::byte* values, int in_page, int d, float value) {
  const int at = in_page * kv.head_dim + d;
  if (kv.dtype == DType::kF16)
    reinterpret_cast<uint16_t*>(values)[at] = narrow_f16(value);
  else
    reinterpret_cast<float*>(values)[at] = value;
}

// q8_0: where an integer and its block's scale lie, as bytes from keys or values on.
__device__ inline int q8_key_at(const KvView& kv, int in_page, int d) {
  return ((d / 8 << kv.page_shift) + in_page) * 8 + d % 8;
}
__device__ inline int q8_key_scale_at(const KvView& kv, int in_page, int d) {
  return (kv.head_dim << kv.page_shift) + ((d / kKvBlockSize << kv.page_shift) + in_page) * 2;
}
__device__ inline int q8_value_at(const KvView& kv, int in_page, int d) { return in_page * kv.value_bytes + d; }
__device__ inline int q8_value_scale_at(const KvView& kv, int in_page, int d) {
  return in_page * kv.value_bytes + kv.head_dim + d / kKvBlockSize * 2;
}

// q8_0: a warp's 32 values, or fewer and 0 in the lanes behind, as integers and the f16 scale that all share.
struct Q8 {
  uint16_t d;
  int8_t q;
};
__device__ inline Q8 round_to_q8(float x) {
  const unsigned largest = integer_max(__float_as_uint(x) & 0x7fffffffu);  // NaN orders last
  const uint16_t bits = narrow_f16(__fdiv_rn(__uint_as_float(largest), 127.0f));
  const float d = widen_f16(bits);
  if (largest > 0x7f800000u || d == 0.0f) return {bits, 0};
  const float q = __fdiv_rn(x, d);
  return {bits, static_cast<int8_t>(__float2int_rn(q > 127.0f ? 127.0f : q < -127.0f ? -127.0f : q))};
}

// q8_0, by a warp: the block of a key and a value of a head, [head_dim] each, that begins at element d.
__device__ inline void append_q8(const KvView& kv, std::byte* keys, int in_page, int d, const float* key,
                                 const float* value) {
  std::byte* const values = keys + kv.half_bytes;
  const int mine = d + lane_id();
  const bool has = mine < kv.head_dim;
  const Q8 k = round_to_q8(has ? key[mine] : 0.0f), v = round_to_q8(has ? value[mine] : 0.0f);
  if (!has) return;
  reinterpret_cast<int8_t*>(keys)[q8_key_at(kv, in_page, mine)] = k.q;
  reinterpret_cast<int8_t*>(values)[q8_value_at(kv, in_page, mine)] = v.q;
  if (lane_id() != 0) return;
  *reinterpret_cast<uint16_t*>(keys + q8_key_scale_at(kv, in_page, d)) = k.d;
  *reinterpret_cast<uint16_t*>(values + q8_value_scale_at(kv, in_page, d)) = v.d;
}

// Eight or, of float32, four elements of a position's key as floats; d: the block's scale in q8_0.
template <DType kKv>
inline constexpr int kKeyUnit = kKv == DType::kF32 ? 4 : 8;
template <DType kKv>
__device__ void load_key(const std::byte* keys, int index, float d, float (&k)[kKeyUnit<kKv>]) {
  if constexpr (kKv == DType::kQ8_0) {
    const uint2 u = reinterpret_cast<const uint2*>(keys)[index];
#pragma unroll
    for (int i = 0; i < 8; ++i)
      k[i] = __fmul_rn(d, __int2float_rn(static_cast<int8_t>((i < 4 ? u.x : u.y) >> 8 * (i % 4))));
  } else {
    const uint4 u = reinterpret_cast<const uint4*>(keys)[index];
    const unsigned words[4] = {u.x, u.y, u.z, u.w};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if constexpr (kKv == DType::kF16) {
        k[2 * i] = widen_f16(static_cast<uint16_t>(words[i] & 0xffffu));
        k[2 * i + 1] = widen_f16(static_cast<uint16_t>(words[i] >> 16));
      } else {
        k[i] = __uint_as_float(words[i]);
      }
    }
  }
}

// One element of a value; values: of a page, or staged.
template <DType kKv>
__device__ float value_at(const KvView& kv, const std::byte* values, int position, int d) {
  if constexpr (kKv == DType::kQ8_0) {
    const uint16_t scale = *reinterpret_cast<const uint16_t*>(values + q8_value_scale_at(kv, position, d));
    return __fmul_rn(widen_f16(scale),
                     __int2float_rn(reinterpret_cast<const int8_t*>(values)[q8_value_at(kv, position, d)]));
  } else {
    const int at = position * kv.head_dim + d;
    return kKv == DType::kF16 ? widen_f16(reinterpret_cast<const uint16_t*>(values)[at])
                              : reinterpret_cast<const float*>(values)[at];
  }
}

}  // namespace llorch::cuda
