// Where a lane's segment of a quantized matrix lies, and the scales that it has: a struct for each way in which formats
// keep them. codes.h says which type has which.
#pragma once

#include "backend/cuda/device_code.h"
#include "backend/cuda/kernels.h"
#include "tensor/blocks.h"

namespace llorch::cuda {

inline constexpr int kBlocksPerSegment = kSegment / kQuantBlock;

// The first unit of each kind; the next is kGroup further.
struct SegmentPlace {
  uint4* units;
  uint4* highs;
  uint4* scales;
  uint16_t* d;
};
template <typename Codes>
__device__ SegmentPlace segment_place(const MatrixView& w, int64_t group, int segment, int lane) {
  constexpr int kScaleUnits = Codes::Scales::kUnits;
  const int64_t at = group * w.segments + segment;
  return {w.units + (group * w.units_per_row + segment * kBlocksPerSegment * Codes::kUnits) * kGroup + lane,
          Codes::kHighUnits > 0 ? w.highs + at * Codes::kHighUnits * kGroup + lane : nullptr,
          w.scales + at * kScaleUnits * kGroup + lane, Codes::Scales::kHasD ? w.d + at * kGroup + lane : nullptr};
}

// Each struct: scale(g) and, where there are minimums, minimum(b) are those of tensor/blocks.h for a scale group, or
// block of 32, of the segment; store() is what block b of the segment, which lies in `file`, adds to the lane's units.
// Where scales are integers times a factor (kHasSuperblocks), scale(g) is factor() * scale_code(g).

__device__ inline unsigned word_of(const uint4& unit, int i) {
  return i == 0 ? unit.x : i == 1 ? unit.y : i == 2 ? unit.z : unit.w;
}
__device__ inline float f16_at(const uint4& eight, int i) {
  return widen_f16(static_cast<uint16_t>(word_of(eight, i / 2) >> 16 * (i % 2) & 0xffffu));
}

// Eight f16.
struct BlockScales {
  static constexpr bool kHasSuperblocks = false;
  static constexpr int kUnits = 1;
  static constexpr bool kHasD = false;
  uint4 scales;

  __device__ BlockScales(const uint4* units, uint16_t) : scales(units[0]) {}
  __device__ float scale(int b) const { return f16_at(scales, b); }
  template <typename Block>
  __device__ static void store(const Block& file, const SegmentPlace& to, int b) {
    reinterpret_cast<uint16_t*>(to.scales)[b] = file.d;
  }
};

// Eight f16, and as many minimums in a second unit.
struct BlockScalesAndMinimums {
  static constexpr bool kHasSuperblocks = false;
  static constexpr int kUnits = 2;
  static constexpr bool kHasD = false;
  uint4 scales, minimums;

  __device__ BlockScalesAndMinimums(const uint4* units, uint16_t) : scales(units[0]), minimums(units[1]) {}
  __device__ float scale(int b) const { return f16_at(scales, b); }
  __device__ float minimum(int b) const { return f16_at(minimums, b); }
  template <typename Block>
  __device__ static void store(const Block& file, const SegmentPlace& to, int b) {
    reinterpret_cast<uint16_t*>(to.scales)[b] = file.d;
    reinterpret_cast<uint16_t*>(to.scales + kGroup)[b] = file.m;
  }
};

__device__ inline float byte_at(unsigned four, int i) {
  return __int2float_rn(static_cast<int>(four >> 8 * i & 0xffu));
}

// Q4_K, Q5_K: d, dmin and twelve bytes of 6-bit scales and minimums fill a unit as they stand in the file: one load,
// and no byte more than the file has. To unpack them takes a dozen operations a segment.
struct SuperblockScales {
  static constexpr bool kHasSuperblocks = true;
  static constexpr int kUnits = 1;
  static constexpr bool kHasD = false;
  float d, dmin;
  unsigned scales[2], minimums[2];

  __device__ SuperblockScales(const uint4* units, uint16_t)
      : d(widen_f16(static_cast<uint16_t>(units->x & 0xffffu))),
        dmin(widen_f16(static_cast<uint16_t>(units->x >> 16))),
        scales{units->y & 0x3f3f3f3fu, (units->w & 0x0f0f0f0fu) | (units->y >> 2 & 0x30303030u)},
        minimums{units->z & 0x3f3f3f3fu, (units->w >> 4 & 0x0f0f0f0fu) | (units->z >> 2 & 0x30303030u)} {}
  __device__ float factor() const { return d; }
  __device__ float scale_code(int b) const { return byte_at(b < 4 ? scales[0] : scales[1], b % 4); }
  __device__ float scale(int b) const { return __fmul_rn(d, scale_code(b)); }
  __device__ float minimum(int b) const { return -__fmul_rn(dmin, byte_at(b < 4 ? minimums[0] : minimums[1], b % 4)); }
  template <typename Block>
  __device__ static void store(const Block& file, const SegmentPlace& to, int b) {
    if (b != 0) return;
    auto* halves = reinterpret_cast<uint16_t*>(to.scales);
    halves[0] = file.d;
    halves[1] = file.dmin;
    for (int i = 0; i < 12; ++i) reinterpret_cast<uint8_t*>(to.scales)[4 + i] = file.scales[i];
  }
};

// Q6_K: sixteen signed bytes fill a unit, and d stands apart.
struct SignedSuperblockScales {
  static constexpr bool kHasSuperblocks = true;
  static constexpr int kUnits = 1;
  static constexpr bool kHasD = true;
  uint4 scales;
  float d;

  __device__ SignedSuperblockScales(const uint4* units, uint16_t d_bits) : scales(units[0]), d(widen_f16(d_bits)) {}
  __device__ float factor() const { return d; }
  __device__ float scale_code(int g) const {
    return __int2float_rn(static_cast<int8_t>(word_of(scales, g / 4) >> 8 * (g % 4)));
  }
  __device__ float scale(int g) const { return __fmul_rn(d, scale_code(g)); }
  template <typename Block>
  __device__ static void store(const Block& file, const SegmentPlace& to, int b) {
    if (b != 0) return;
    for (int i = 0; i < 16; ++i) reinterpret_cast<int8_t*>(to.scales)[i] = file.scales[i];
    *to.d = file.d;
  }
};

}  // namespace llorch::cuda
