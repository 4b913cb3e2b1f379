// Sixteen float or int32 lanes as two registers of AVX2, FMA and F16C.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace llorch::cpu {
namespace {

struct Avx2Lanes {
  struct F {
    __m256 a, b;
  };
  struct I {
    __m256i a, b;
  };
  static constexpr int kFloatTile = 6;  // x 2 registers = 12 of 16
  static constexpr int kFloatGroups = 1;
  static constexpr bool kWidenOnce = false;
  static constexpr int kQuantTile = 4;
  static constexpr int kDotChains = 1;

  static F zero() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
  static F set1(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
  static F load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
  static F load_first(const float* p, int n) {
    return {_mm256_maskload_ps(p, first(n)), n > 8 ? _mm256_maskload_ps(p + 8, first(n - 8)) : _mm256_setzero_ps()};
  }
  static void store(float* p, F v) {
    _mm256_storeu_ps(p, v.a);
    _mm256_storeu_ps(p + 8, v.b);
  }
  static void store_first(float* p, F v, int n) {
    _mm256_maskstore_ps(p, first(n), v.a);
    if (n > 8) _mm256_maskstore_ps(p + 8, first(n - 8), v.b);
  }
  static F load_f16(const uint16_t* p) { return {half8(p), half8(p + 8)}; }
  static F load_bf16(const uint16_t* p) { return {bfloat8(p), bfloat8(p + 8)}; }
  static F set1_f16(uint16_t x) {
    const __m256 wide = _mm256_cvtph_ps(_mm_set1_epi16(static_cast<int16_t>(x)));
    return {wide, wide};
  }
  static F load_8bit(const uint8_t* p) {
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
    return {_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(bytes)),
            _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_unpackhi_epi64(bytes, bytes)))};
  }
  static F load_8bit(const int8_t* p) {
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
    return {_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes)),
            _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_unpackhi_epi64(bytes, bytes)))};
  }
  static F load_f16_first(const uint16_t* p, int n) {
    uint16_t whole[16] = {};
    for (int i = 0; i < n && i < 16; ++i) whole[i] = p[i];
    return load_f16(whole);
  }
  // Saturates to +-65504, keeps NaN: the constant comes first because max and min return the second operand on NaN.
  static void store_f16_first(uint16_t* p, F v, int n) {
    uint16_t whole[16];
    _mm_storeu_si128(reinterpret_cast<__m128i*>(whole), to_half8(v.a));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(whole + 8), to_half8(v.b));
    for (int i = 0; i < n && i < 16; ++i) p[i] = whole[i];
  }

  static F fma(F x, F y, F z) { return {_mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b)}; }
  static F add(F x, F y) { return {_mm256_add_ps(x.a, y.a), _mm256_add_ps(x.b, y.b)}; }
  static F sub(F x, F y) { return {_mm256_sub_ps(x.a, y.a), _mm256_sub_ps(x.b, y.b)}; }
  static F mul(F x, F y) { return {_mm256_mul_ps(x.a, y.a), _mm256_mul_ps(x.b, y.b)}; }
  static F div(F x, F y) { return {_mm256_div_ps(x.a, y.a), _mm256_div_ps(x.b, y.b)}; }
  static F max(F x, F y) { return {_mm256_max_ps(x.a, y.a), _mm256_max_ps(x.b, y.b)}; }
  static F negate(F x) {
    const __m256 sign = _mm256_set1_ps(-0.0f);
    return {_mm256_xor_ps(x.a, sign), _mm256_xor_ps(x.b, sign)};
  }
  static F select_less(F x, F y, F yes, F no) {
    return {_mm256_blendv_ps(no.a, yes.a, _mm256_cmp_ps(x.a, y.a, _CMP_LT_OQ)),
            _mm256_blendv_ps(no.b, yes.b, _mm256_cmp_ps(x.b, y.b, _CMP_LT_OQ))};
  }
  static F select_nan(F x, F yes, F no) {
    return {_mm256_blendv_ps(no.a, yes.a, _mm256_cmp_ps(x.a, x.a, _CMP_UNORD_Q)),
            _mm256_blendv_ps(no.b, yes.b, _mm256_cmp_ps(x.b, x.b, _CMP_UNORD_Q))};
  }
  static F select_first(F x, F other, int n) {
    return {_mm256_blendv_ps(other.a, x.a, _mm256_castsi256_ps(first(n))),
            _mm256_blendv_ps(other.b, x.b, _mm256_castsi256_ps(first(n - 8)))};
  }
  static float reduce_max(F v) {
    const __m256 m = _mm256_max_ps(v.a, v.b);
    __m128 h = _mm_max_ps(_mm256_castps256_ps128(m), _mm256_extractf128_ps(m, 1));
    h = _mm_max_ps(h, _mm_movehl_ps(h, h));
    return _mm_cvtss_f32(_mm_max_ss(h, _mm_shuffle_ps(h, h, 1)));
  }

  static I zero_i() { return {_mm256_setzero_si256(), _mm256_setzero_si256()}; }
  static I set1_i(int32_t x) { return {_mm256_set1_epi32(x), _mm256_set1_epi32(x)}; }
  static I load_i(const void* p) {
    const auto* v = static_cast<const __m256i*>(p);
    return {_mm256_loadu_si256(v), _mm256_loadu_si256(v + 1)};
  }
  static I load_i8_as_i16(const int8_t* p) {
    const auto* v = reinterpret_cast<const __m128i*>(p);
    return {_mm256_cvtepi8_epi16(_mm_loadu_si128(v)), _mm256_cvtepi8_epi16(_mm_loadu_si128(v + 1))};
  }
  static void store_i(int32_t* p, I v) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), v.a);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p + 8), v.b);
  }
  // Values must fit int16. The pack works inside 128-bit halves, so the middle quarters are swapped back.
  static void store_i16(int16_t* p, I v) {
    const __m256i packed = _mm256_permute4x64_epi64(_mm256_packs_epi32(v.a, v.b), 0xd8);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), packed);
  }
  static I add_i(I x, I y) { return {_mm256_add_epi32(x.a, y.a), _mm256_add_epi32(x.b, y.b)}; }
  static I max_i(I x, I y) { return {_mm256_max_epi32(x.a, y.a), _mm256_max_epi32(x.b, y.b)}; }
  static I and_i(I x, I y) { return {_mm256_and_si256(x.a, y.a), _mm256_and_si256(x.b, y.b)}; }
  static I or_i(I x, I y) { return {_mm256_or_si256(x.a, y.a), _mm256_or_si256(x.b, y.b)}; }
  template <int kBits>
  static I shift_right_16(I x) {
    return {_mm256_srli_epi16(x.a, kBits), _mm256_srli_epi16(x.b, kBits)};
  }
  template <int kBits>
  static I shift_left(I x) {
    return {_mm256_slli_epi32(x.a, kBits), _mm256_slli_epi32(x.b, kBits)};
  }
  static I bits(F x) { return {_mm256_castps_si256(x.a), _mm256_castps_si256(x.b)}; }
  static F from_bits(I x) { return {_mm256_castsi256_ps(x.a), _mm256_castsi256_ps(x.b)}; }
  static F to_float(I x) { return {_mm256_cvtepi32_ps(x.a), _mm256_cvtepi32_ps(x.b)}; }
  static I round_to_int(F x) { return {_mm256_cvtps_epi32(x.a), _mm256_cvtps_epi32(x.b)}; }
  static int32_t reduce_max_i(I v) {
    int32_t lanes[16], result = INT32_MIN;
    store_i(lanes, v);
    for (const int32_t lane : lanes) result = lane > result ? lane : result;
    return result;
  }
  static int32_t reduce_add_i(I v) {
    int32_t lanes[16], result = 0;
    store_i(lanes, v);
    for (const int32_t lane : lanes) result += lane;
    return result;
  }

  // acc + the two int16 products of each lane.
  static I dot_pairs(I acc, I x, I y) {
    I sum = {_mm256_add_epi32(acc.a, _mm256_madd_epi16(x.a, y.a)),
             _mm256_add_epi32(acc.b, _mm256_madd_epi16(x.b, y.b))};
    // GCC would make all products of an unrolled block before it adds them: ten times as many values as registers.
    asm("" : "+x"(sum.a), "+x"(sum.b));
    return sum;
  }

  // Inlined by force: GCC 12 takes a function that only prefetches for one without effects and deletes its calls.
  [[gnu::always_inline]] static void prefetch(const void* p) { _mm_prefetch(static_cast<const char*>(p), _MM_HINT_T0); }

 private:
  static __m256i first(int n) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
  }
  static __m256 half8(const uint16_t* p) {
    return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  }
  static __m256 bfloat8(const uint16_t* p) {
    const __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
    return _mm256_castsi256_ps(_mm256_slli_epi32(wide, 16));
  }
  static __m128i to_half8(__m256 v) {
    v = _mm256_min_ps(_mm256_set1_ps(65504.0f), _mm256_max_ps(_mm256_set1_ps(-65504.0f), v));
    return _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  }
};

}  // namespace
}  // namespace llorch::cpu
