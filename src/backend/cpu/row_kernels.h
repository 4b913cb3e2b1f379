// Kernels on single rows: packing and quantizing activations, RMSNorm, gated SiLU, RoPE. Written once over sixteen
// lanes; included by one source file for each instruction set (see linear_kernels.h).
#pragma once

#include "backend/cpu/kernels.h"
#include "base/exp.h"

namespace llorch::cpu {
namespace {

// exp_f32 of base/exp.h, lane by lane.
template <typename L>
[[gnu::always_inline]] inline typename L::F exp_lanes(typename L::F x) {
  namespace c = exp_constants;
  using F = typename L::F;
  const F magic = L::set1(c::kMagic);
  const F shifted = L::fma(x, L::set1(c::kLog2e), magic);
  const F n = L::sub(shifted, magic);
  F r = L::fma(n, L::set1(-c::kLn2High), x);
  r = L::fma(n, L::set1(-c::kLn2Low), r);
  F p = L::set1(c::kC6);
  p = L::fma(p, r, L::set1(c::kC5));
  p = L::fma(p, r, L::set1(c::kC4));
  p = L::fma(p, r, L::set1(c::kC3));
  p = L::fma(p, r, L::set1(c::kC2));
  p = L::fma(p, r, L::set1(1.0f));
  p = L::fma(p, r, L::set1(1.0f));
  // The exponent field takes n + 126; the magic constant's own low bits vanish in the shift.
  const auto exponent = L::template shift_left<23>(L::add_i(L::bits(shifted), L::set1_i(126)));
  const F value = L::mul(L::mul(p, L::set1(2.0f)), L::from_bits(exponent));
  const F bounded = L::select_less(x, L::set1(c::kMin), L::zero(),
                                   L::select_less(L::set1(c::kMax), x, L::set1(__builtin_inff()), value));
  return L::select_nan(x, x, bounded);
}

template <typename L>
void gated_silu(const float* gate, const float* up, int n, float* y) {
  using F = typename L::F;
  for (int i = 0; i < n; i += 16) {
    const F g = L::load_first(gate + i, n - i), u = L::load_first(up + i, n - i);
    const F silu = L::div(g, L::add(L::set1(1.0f), exp_lanes<L>(L::negate(g))));
    L::store_first(y + i, L::mul(silu, u), n - i);
  }
}

template <typename L>
void rms_norm(const float* x, const float* weight, float eps, int n, float* y) {
  using F = typename L::F;
  F even = L::zero(), odd = L::zero();  // partial sums 0..15 and 16..31
  for (int k = 0; k < n; k += 32) {
    const F a = L::load_first(x + k, n - k);
    even = L::fma(a, a, even);
    if (n - k > 16) {
      const F b = L::load_first(x + k + 16, n - k - 16);
      odd = L::fma(b, b, odd);
    }
  }
  float partial[16];
  L::store(partial, L::add(even, odd));
  for (int width = 8; width > 0; width /= 2)
    for (int i = 0; i < width; ++i) partial[i] += partial[i + width];
  const F inverse = L::set1(1.0f / __builtin_sqrtf(partial[0] / static_cast<float>(n) + eps));
  for (int k = 0; k < n; k += 16) {
    const F normed = L::mul(L::load_first(x + k, n - k), inverse);
    L::store_first(y + k, L::mul(normed, L::load_first(weight + k, n - k)), n - k);
  }
}

template <typename L>
void pack_floats(const float* const* x, int rows, int cols, float* out) {
  if (rows == 1) {
    for (int k = 0; k < cols; k += 16) L::store_first(out + k, L::load_first(x[0] + k, cols - k), cols - k);
    return;
  }
  for (int k = 0; k < cols; ++k)
    for (int r = 0; r < rows; ++r) out[k * rows + r] = x[r][k];
}

// The int16 blocks of reference::quantize; out: of this tile.
template <typename L>
void pack_quantized(const float* const* x, int rows, int cols, const PackedRows& out) {
  using F = typename L::F;
  using I = typename L::I;
  const I magnitude = L::set1_i(0x7fffffff);
  for (int r = 0; r < rows; ++r)
    for (int b = 0; b < cols / kQuantBlock; ++b) {
      const F low = L::load(x[r] + b * kQuantBlock), high = L::load(x[r] + b * kQuantBlock + 16);
      // The bits of non-negative floats order like integers, infinity and NaN last.
      const int32_t largest =
          L::reduce_max_i(L::max_i(L::and_i(L::bits(low), magnitude), L::and_i(L::bits(high), magnitude)));
      float d = 0.0f;
      I q_low = L::zero_i(), q_high = L::zero_i();
      if (largest >= 0x7f800000) {
        d = __builtin_nanf("");
      } else if (largest >= 0x1f800000) {  // 2^-64
        float amax;
        __builtin_memcpy(&amax, &largest, sizeof amax);
        d = amax / 32767.0f;
        q_low = L::round_to_int(L::div(low, L::set1(d)));
        q_high = L::round_to_int(L::div(high, L::set1(d)));
      }
      // Two neighbours share a word: for one row that is simply the int16 values in order.
      int16_t q[kQuantBlock];
      int32_t words[kPairs];
      L::store_i16(q, q_low);
      L::store_i16(q + 16, q_high);
      __builtin_memcpy(words, q, sizeof words);
      for (int p = 0; p < kPairs; ++p) out.pairs[(b * kPairs + p) * rows + r] = words[p];
      out.scales[b * rows + r] = d;
      out.first_sums[b * rows + r] = L::reduce_add_i(q_low);
      out.sums[b * rows + r] = L::reduce_add_i(L::add_i(q_low, q_high));
    }
}

[[gnu::always_inline]] inline void rotate_pair(float& a, float& b, float cos, float sin) {
  const float rotated_a = __builtin_fmaf(a, cos, -(b * sin));
  const float rotated_b = __builtin_fmaf(a, sin, b * cos);
  a = rotated_a;
  b = rotated_b;
}

template <typename L>
void store_kv(uint16_t* out, const float* x, int n) {
  L::store_f16_first(out, L::load_first(x, n), n);
}
template <typename L>
void store_kv(float* out, const float* x, int n) {
  L::store_first(out, L::load_first(x, n), n);
}

// reference::round_to_q8 of n <= 32 elements: the integers at out, `stride` apart, and their scale.
template <typename L>
void store_q8(int8_t* out, size_t stride, uint16_t* scale, const float* x, int n) {
  using F = typename L::F;
  const auto magnitude = L::set1_i(0x7fffffff);
  const F halves[2] = {L::load_first(x, n), n > 16 ? L::load_first(x + 16, n - 16) : L::zero()};
  const int32_t largest =
      L::reduce_max_i(L::max_i(L::and_i(L::bits(halves[0]), magnitude), L::and_i(L::bits(halves[1]), magnitude)));
  float amax;
  __builtin_memcpy(&amax, &largest, sizeof amax);
  L::store_f16_first(scale, L::set1(amax / 127.0f), 1);  // NaN if one is among them: its bits are the largest
  const F d = L::set1_f16(*scale);
  const bool zero = (*scale & 0x7fff) == 0 || (*scale & 0x7fff) > 0x7c00;
  for (int half = 0; half < 2 && half * 16 < n; ++half) {
    F q = L::div(halves[half], d);
    q = L::select_less(q, L::set1(-127.0f), L::set1(-127.0f), q);
    q = L::select_less(L::set1(127.0f), q, L::set1(127.0f), q);
    int32_t integers[16];
    L::store_i(integers, zero ? L::zero_i() : L::round_to_int(q));
    for (int i = 0; i < 16 && half * 16 + i < n; ++i)
      out[static_cast<size_t>(half * 16 + i) * stride] = static_cast<int8_t>(integers[i]);
  }
}

// Key and value of one KV head, from d on: n elements, which share a scale in 8 bit.
template <typename L, typename Kv>
void append_elements(const RopeArgs& a, int head, int d, int n, const float* k, const float* v) {
  auto* k_out = reinterpret_cast<Kv*>(a.k + head * a.head_stride) + static_cast<size_t>(d) * 16;
  auto* v_out = reinterpret_cast<Kv*>(a.v + head * a.head_stride) + d;
  if constexpr (sizeof(Kv) == 1) {
    auto* k_scale = reinterpret_cast<uint16_t*>(a.k_scales + head * a.head_stride) + d / kQuantBlock * 16;
    auto* v_scale = reinterpret_cast<uint16_t*>(a.v_scales + head * a.head_stride) + d / kQuantBlock;
    store_q8<L>(k_out, 16, k_scale, k + d, n);
    store_q8<L>(v_out, 1, v_scale, v + d, n);
  } else {
    Kv rounded[16];
    store_kv<L>(rounded, k + d, n);
    for (int i = 0; i < n; ++i) k_out[i * 16] = rounded[i];
    store_kv<L>(v_out, v + d, n);
  }
}

template <typename L, typename Kv>
void rope_append(const RopeArgs& a) {
  const int half = a.head_dim / 2;
  for (int head = 0; head < a.n_heads + a.n_kv_heads; ++head) {
    float* x = a.qkv + static_cast<size_t>(head) * a.head_dim;
    if (a.pairs == RopePairs::kInterleaved)
      for (int i = 0; i < half; ++i) rotate_pair(x[2 * i], x[2 * i + 1], a.cos[i], a.sin[i]);
    else
      for (int i = 0; i < half; ++i) rotate_pair(x[i], x[i + half], a.cos[i], a.sin[i]);
  }
  const float* k = a.qkv + static_cast<size_t>(a.n_heads) * a.head_dim;
  const float* v = k + static_cast<size_t>(a.n_kv_heads) * a.head_dim;
  constexpr int kStep = sizeof(Kv) == 1 ? kQuantBlock : 16;
  for (int head = 0; head < a.n_kv_heads; ++head)
    for (int d = 0; d < a.head_dim; d += kStep) {
      const int n = a.head_dim - d < kStep ? a.head_dim - d : kStep;
      append_elements<L, Kv>(a, head, d, n, k + head * a.head_dim, v + head * a.head_dim);
    }
}

}  // namespace
}  // namespace llorch::cpu
