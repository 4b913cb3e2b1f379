// Sixteen float or int32 lanes on AVX-512 (F, BW, VL, DQ), with or without VNNI.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace llorch::cpu {
namespace {

template <bool kVnni>
struct Avx512Lanes {
  using F = __m512;
  using I = __m512i;
  static constexpr int kFloatTile = 12;  // activation rows per tile: x 2 groups = 24 of 32 registers
  static constexpr int kFloatGroups = 2;
  static constexpr bool kWidenOnce = true;
  static constexpr int kQuantTile = 12;
  static constexpr int kDotChains = kVnni ? 2 : 1;  // of few rows: vpdpwssd waits five cycles for its sum

  static F zero() { return _mm512_setzero_ps(); }
  static F set1(float x) { return _mm512_set1_ps(x); }
  static F load(const float* p) { return _mm512_loadu_ps(p); }
  static F load_first(const float* p, int n) { return _mm512_maskz_loadu_ps(first(n), p); }
  static void store(float* p, F v) { _mm512_storeu_ps(p, v); }
  static void store_first(float* p, F v, int n) { _mm512_mask_storeu_ps(p, first(n), v); }
  static F load_f16(const uint16_t* p) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  }
  static F load_bf16(const uint16_t* p) {
    const __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
    return _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
  }
  static F set1_f16(uint16_t x) { return _mm512_cvtph_ps(_mm256_set1_epi16(static_cast<int16_t>(x))); }
  static F load_8bit(const uint8_t* p) {
    return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
  }
  static F load_8bit(const int8_t* p) {
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
  }
  static F load_f16_first(const uint16_t* p, int n) { return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(first(n), p)); }
  // Saturates to +-65504, keeps NaN: the constant comes first because max and min return the second operand on NaN.
  static void store_f16_first(uint16_t* p, F v, int n) {
    v = _mm512_min_ps(set1(65504.0f), _mm512_max_ps(set1(-65504.0f), v));
    _mm256_mask_storeu_epi16(p, first(n), _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
  }

  static F fma(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }
  static F add(F a, F b) { return _mm512_add_ps(a, b); }
  static F sub(F a, F b) { return _mm512_sub_ps(a, b); }
  static F mul(F a, F b) { return _mm512_mul_ps(a, b); }
  static F div(F a, F b) { return _mm512_div_ps(a, b); }
  static F max(F a, F b) { return _mm512_max_ps(a, b); }
  static F negate(F a) { return _mm512_xor_ps(a, set1(-0.0f)); }
  static F select_less(F a, F b, F yes, F no) {
    return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(a, b, _CMP_LT_OQ), no, yes);
  }
  static F select_nan(F a, F yes, F no) {
    return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(a, a, _CMP_UNORD_Q), no, yes);
  }
  static F select_first(F a, F other, int n) { return _mm512_mask_blend_ps(first(n), other, a); }
  static float reduce_max(F v) { return _mm512_reduce_max_ps(v); }

  static I zero_i() { return _mm512_setzero_si512(); }
  static I set1_i(int32_t x) { return _mm512_set1_epi32(x); }
  static I load_i(const void* p) { return _mm512_loadu_si512(p); }
  static I load_i8_as_i16(const int8_t* p) {
    return _mm512_cvtepi8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  }
  static void store_i(int32_t* p, I v) { _mm512_storeu_si512(p, v); }
  // Values must fit int16.
  static void store_i16(int16_t* p, I v) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtepi32_epi16(v));
  }
  static I add_i(I a, I b) { return _mm512_add_epi32(a, b); }
  static I max_i(I a, I b) { return _mm512_max_epi32(a, b); }
  static I and_i(I a, I b) { return _mm512_and_si512(a, b); }
  static I or_i(I a, I b) { return _mm512_or_si512(a, b); }
  template <int kBits>
  static I shift_right_16(I a) {
    return _mm512_srli_epi16(a, kBits);
  }
  template <int kBits>
  static I shift_left(I a) {
    return _mm512_slli_epi32(a, kBits);
  }
  static I bits(F a) { return _mm512_castps_si512(a); }
  static F from_bits(I a) { return _mm512_castsi512_ps(a); }
  static F to_float(I a) { return _mm512_cvtepi32_ps(a); }
  static I round_to_int(F a) { return _mm512_cvtps_epi32(a); }
  static int32_t reduce_max_i(I v) { return _mm512_reduce_max_epi32(v); }
  static int32_t reduce_add_i(I v) { return _mm512_reduce_add_epi32(v); }

  // acc + the two int16 products of each lane.
  static I dot_pairs(I acc, I a, I b) {
    if constexpr (kVnni) return _mm512_dpwssd_epi32(acc, a, b);
    return _mm512_add_epi32(acc, _mm512_madd_epi16(a, b));
  }

  // Inlined by force: GCC 12 takes a function that only prefetches for one without effects and deletes its calls.
  [[gnu::always_inline]] static void prefetch(const void* p) { _mm_prefetch(static_cast<const char*>(p), _MM_HINT_T0); }

  // Into the second-level cache.
  [[gnu::always_inline]] static void prefetch_far(const void* p) {
    _mm_prefetch(static_cast<const char*>(p), _MM_HINT_T1);
  }

 private:
  static __mmask16 first(int n) { return static_cast<__mmask16>(n >= 16 ? 0xffff : (1 << n) - 1); }
};

}  // namespace
}  // namespace llorch::cpu
