// Sixteen float or int32 lanes as four registers of AArch64 NEON.
#pragma once

#include <arm_neon.h>

#include <cstdint>

namespace llorch::cpu {
namespace {

struct NeonLanes {
  struct F {
    float32x4_t v[4];
  };
  struct I {
    int32x4_t v[4];
  };
  static constexpr int kFloatTile = 4;  // x 4 registers = 16 of 32, the rest hold weights and activations
  static constexpr int kFloatGroups = 1;
  static constexpr bool kWidenOnce = false;
  static constexpr int kQuantTile = 4;
  static constexpr int kDotChains = 1;

  // Applies f to each of the four registers.
  template <typename Result, typename Function>
  static Result each(Function f) {
    return {{f(0), f(1), f(2), f(3)}};
  }

  static F zero() { return set1(0.0f); }
  static F set1(float x) {
    return each<F>([&](int) { return vdupq_n_f32(x); });
  }
  static F load(const float* p) {
    return each<F>([&](int i) { return vld1q_f32(p + 4 * i); });
  }
  static F load_first(const float* p, int n) {
    float whole[16] = {};
    for (int i = 0; i < n && i < 16; ++i) whole[i] = p[i];
    return load(whole);
  }
  static void store(float* p, F x) {
    for (int i = 0; i < 4; ++i) vst1q_f32(p + 4 * i, x.v[i]);
  }
  static void store_first(float* p, F x, int n) {
    float whole[16];
    store(whole, x);
    for (int i = 0; i < n && i < 16; ++i) p[i] = whole[i];
  }
  static F load_f16(const uint16_t* p) {
    return each<F>([&](int i) { return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p + 4 * i))); });
  }
  static F load_bf16(const uint16_t* p) {
    return each<F>([&](int i) { return vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(p + 4 * i), 16)); });
  }
  static F set1_f16(uint16_t x) {
    return each<F>([&](int) { return vcvt_f32_f16(vreinterpret_f16_u16(vdup_n_u16(x))); });
  }
  static F load_8bit(const uint8_t* p) {
    const uint8x16_t bytes = vld1q_u8(p);
    const uint16x8_t low = vmovl_u8(vget_low_u8(bytes)), high = vmovl_high_u8(bytes);
    return {{vcvtq_f32_u32(vmovl_u16(vget_low_u16(low))), vcvtq_f32_u32(vmovl_high_u16(low)),
             vcvtq_f32_u32(vmovl_u16(vget_low_u16(high))), vcvtq_f32_u32(vmovl_high_u16(high))}};
  }
  static F load_8bit(const int8_t* p) {
    const int8x16_t bytes = vld1q_s8(p);
    const int16x8_t low = vmovl_s8(vget_low_s8(bytes)), high = vmovl_high_s8(bytes);
    return {{vcvtq_f32_s32(vmovl_s16(vget_low_s16(low))), vcvtq_f32_s32(vmovl_high_s16(low)),
             vcvtq_f32_s32(vmovl_s16(vget_low_s16(high))), vcvtq_f32_s32(vmovl_high_s16(high))}};
  }
  static F load_f16_first(const uint16_t* p, int n) {
    uint16_t whole[16] = {};
    for (int i = 0; i < n && i < 16; ++i) whole[i] = p[i];
    return load_f16(whole);
  }
  // Saturates to +-65504; FMIN and FMAX keep NaN.
  static void store_f16_first(uint16_t* p, F x, int n) {
    uint16_t whole[16];
    for (int i = 0; i < 4; ++i) {
      const float32x4_t v = vminq_f32(vdupq_n_f32(65504.0f), vmaxq_f32(vdupq_n_f32(-65504.0f), x.v[i]));
      vst1_u16(whole + 4 * i, vreinterpret_u16_f16(vcvt_f16_f32(v)));
    }
    for (int i = 0; i < n && i < 16; ++i) p[i] = whole[i];
  }

  static F fma(F x, F y, F z) {
    return each<F>([&](int i) { return vfmaq_f32(z.v[i], x.v[i], y.v[i]); });
  }
  static F add(F x, F y) {
    return each<F>([&](int i) { return vaddq_f32(x.v[i], y.v[i]); });
  }
  static F sub(F x, F y) {
    return each<F>([&](int i) { return vsubq_f32(x.v[i], y.v[i]); });
  }
  static F mul(F x, F y) {
    return each<F>([&](int i) { return vmulq_f32(x.v[i], y.v[i]); });
  }
  static F div(F x, F y) {
    return each<F>([&](int i) { return vdivq_f32(x.v[i], y.v[i]); });
  }
  static F max(F x, F y) {
    return each<F>([&](int i) { return vmaxnmq_f32(x.v[i], y.v[i]); });
  }
  static F negate(F x) {
    return each<F>([&](int i) { return vnegq_f32(x.v[i]); });
  }
  static F select_less(F x, F y, F yes, F no) {
    return each<F>([&](int i) { return vbslq_f32(vcltq_f32(x.v[i], y.v[i]), yes.v[i], no.v[i]); });
  }
  static F select_nan(F x, F yes, F no) {
    return each<F>([&](int i) { return vbslq_f32(vceqq_f32(x.v[i], x.v[i]), no.v[i], yes.v[i]); });
  }
  static F select_first(F x, F other, int n) {
    float lanes[16], rest[16];
    store(lanes, x);
    store(rest, other);
    for (int i = n < 0 ? 0 : n; i < 16; ++i) lanes[i] = rest[i];
    return load(lanes);
  }
  static float reduce_max(F x) {
    return vmaxnmvq_f32(vmaxnmq_f32(vmaxnmq_f32(x.v[0], x.v[1]), vmaxnmq_f32(x.v[2], x.v[3])));
  }

  static I zero_i() { return set1_i(0); }
  static I set1_i(int32_t x) {
    return each<I>([&](int) { return vdupq_n_s32(x); });
  }
  static I load_i(const void* p) {
    const auto* words = static_cast<const int32_t*>(p);
    return each<I>([&](int i) { return vld1q_s32(words + 4 * i); });
  }
  static I load_i8_as_i16(const int8_t* p) {
    return each<I>([&](int i) { return vreinterpretq_s32_s16(vmovl_s8(vld1_s8(p + 8 * i))); });
  }
  static void store_i(int32_t* p, I x) {
    for (int i = 0; i < 4; ++i) vst1q_s32(p + 4 * i, x.v[i]);
  }
  // Values must fit int16.
  static void store_i16(int16_t* p, I x) {
    for (int i = 0; i < 4; ++i) vst1_s16(p + 4 * i, vmovn_s32(x.v[i]));
  }
  static I add_i(I x, I y) {
    return each<I>([&](int i) { return vaddq_s32(x.v[i], y.v[i]); });
  }
  static I max_i(I x, I y) {
    return each<I>([&](int i) { return vmaxq_s32(x.v[i], y.v[i]); });
  }
  static I and_i(I x, I y) {
    return each<I>([&](int i) { return vandq_s32(x.v[i], y.v[i]); });
  }
  static I or_i(I x, I y) {
    return each<I>([&](int i) { return vorrq_s32(x.v[i], y.v[i]); });
  }
  template <int kBits>
  static I shift_right_16(I x) {
    if constexpr (kBits == 0)
      return x;  // the instruction's range is 1 to 16
    else
      return each<I>([&](int i) { return vreinterpretq_s32_u16(vshrq_n_u16(vreinterpretq_u16_s32(x.v[i]), kBits)); });
  }
  template <int kBits>
  static I shift_left(I x) {
    return each<I>([&](int i) { return vshlq_n_s32(x.v[i], kBits); });
  }
  static I bits(F x) {
    return each<I>([&](int i) { return vreinterpretq_s32_f32(x.v[i]); });
  }
  static F from_bits(I x) {
    return each<F>([&](int i) { return vreinterpretq_f32_s32(x.v[i]); });
  }
  static F to_float(I x) {
    return each<F>([&](int i) { return vcvtq_f32_s32(x.v[i]); });
  }
  static I round_to_int(F x) {
    return each<I>([&](int i) { return vcvtnq_s32_f32(x.v[i]); });
  }
  static int32_t reduce_max_i(I x) {
    return vmaxvq_s32(vmaxq_s32(vmaxq_s32(x.v[0], x.v[1]), vmaxq_s32(x.v[2], x.v[3])));
  }
  static int32_t reduce_add_i(I x) {
    return vaddvq_s32(vaddq_s32(vaddq_s32(x.v[0], x.v[1]), vaddq_s32(x.v[2], x.v[3])));
  }

  // acc + the two int16 products of each lane.
  static I dot_pairs(I acc, I x, I y) {
    return each<I>([&](int i) {
      const int16x8_t a = vreinterpretq_s16_s32(x.v[i]), b = vreinterpretq_s16_s32(y.v[i]);
      const int32x4_t low = vmull_s16(vget_low_s16(a), vget_low_s16(b));
      return vaddq_s32(acc.v[i], vpaddq_s32(low, vmull_high_s16(a, b)));
    });
  }

  // Inlined by force: GCC 12 takes a function that only prefetches for one without effects and deletes its calls.
  [[gnu::always_inline]] static void prefetch(const void* p) { __builtin_prefetch(p); }
};

}  // namespace
}  // namespace llorch::cpu
