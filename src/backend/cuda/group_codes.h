// A stage of a group's quantized weights on its way to the tensor cores: from the device's memory to where a lane has
// asked for it, and from there, as f16, to where products read it. For kernels.
#pragma once

#include "backend/cuda/async_copy.h"
#include "backend/cuda/tensor_block.h"
#include "backend/cuda/widen.h"

namespace llorch::cuda {

inline constexpr int kStageBlocks = kStageUnits * kHalvesPerUnit / kQuantBlock;
inline constexpr int kAskedUnits = 5,
                     kAskedBytes = kAskedUnits * kGroup * kUnitBytes + kGroup * 2;  // a group's, at most

// The codes of a group of 32 rows, a lane a row: on the device, and a stage of them, two blocks of a segment, where the
// lane has asked for it: alike, without the rest of the segment.
template <typename Codes>
class GroupCodes {
  using Scales = typename Codes::Scales;
  static constexpr int kUnits = kStageBlocks * Codes::kUnits, kHighs = Codes::kHighUnits > 0 ? 1 : 0;
  static constexpr int kBlocksOfHighs = kBlocksPerSegment / (Codes::kHighUnits > 0 ? Codes::kHighUnits : 1);
  static constexpr int kEights = kQuantBlock / 8, kEightsOfScale = Codes::Block::kScaleGroup / 8;
  static_assert(kUnits + kHighs + Scales::kUnits <= kAskedUnits && kBlocksOfHighs % kStageBlocks == 0);

 public:
  __device__ GroupCodes(const MatrixView& w, int group)
      : all_(segment_place<Codes>(w, group, 0, lane_id())), n_blocks_(w.cols / kQuantBlock) {}

  // block: the first of the stage.
  __device__ void ask_for(int block, unsigned char* asked) const {
    const SegmentPlace to = place_in(asked);
    const int n_units = (n_blocks_ - block) * Codes::kUnits;
    const uint4* const units = all_.units + block * Codes::kUnits * kGroup;
#pragma unroll
    for (int i = 0; i < kUnits; ++i)
      if (i < n_units) copy_16(to.units + i * kGroup, units + i * kGroup);
    if constexpr (kHighs > 0) copy_16(to.highs, all_.highs + block / kBlocksOfHighs * kGroup);
    const int segment = block / kBlocksPerSegment;
#pragma unroll
    for (int i = 0; i < Scales::kUnits; ++i)
      copy_16(to.scales + i * kGroup, all_.scales + (segment * Scales::kUnits + i) * kGroup);
    if constexpr (Scales::kHasD)  // two lanes' at once
      if (lane_id() % 2 == 0) copy_4(to.d, all_.d + segment * kGroup);
  }

  // to: the lane's of the group's first unit in the ring. What K lacks of the stage is zero.
  __device__ void widen(int block, unsigned char* asked, float power, uint4* to) const {
    const SegmentPlace from = place_in(asked);
    uint4 units[Scales::kUnits];
#pragma unroll
    for (int i = 0; i < Scales::kUnits; ++i) units[i] = from.scales[i * kGroup];
    uint16_t d = 0;
    if constexpr (Scales::kHasD) d = *from.d;
    HalfScales<Codes> scales({units, d}, power);
    uint4 highs[1] = {};
    if constexpr (kHighs > 0) highs[0] = *from.highs;
    widen_block(from.units, highs, block % kBlocksPerSegment, scales, to);
    if (block + 1 < n_blocks_)
      return widen_block(from.units + Codes::kUnits * kGroup, highs, block % kBlocksPerSegment + 1, scales,
                         to + kEights * kGroup);
#pragma unroll
    for (int eight = kEights; eight < kStageUnits; ++eight) to[eight * kGroup] = make_uint4(0, 0, 0, 0);
  }

 private:
  __device__ static SegmentPlace place_in(unsigned char* asked) {
    uint4* const units = reinterpret_cast<uint4*>(asked) + lane_id();
    return {units, units + kUnits * kGroup, units + (kUnits + kHighs) * kGroup,
            reinterpret_cast<uint16_t*>(asked + kAskedUnits * kGroup * kUnitBytes) + lane_id()};
  }

  // b: of the segment.
  __device__ static void widen_block(const uint4* units, const uint4* highs, int b, HalfScales<Codes>& scales,
                                     uint4* to) {
    uint4 codes[Codes::kUnits];
#pragma unroll
    for (int u = 0; u < Codes::kUnits; ++u) codes[u] = units[u * kGroup];
    int words[kWordsPerBlock];
    Codes::words(codes, highs, b % kBlocksOfHighs, words);
#pragma unroll
    for (int eight = 0; eight < kEights; ++eight) {
      if (eight % kEightsOfScale == 0) scales.choose(b, b * (kEights / kEightsOfScale) + eight / kEightsOfScale);
      const auto two = [&](int pair) { return scales.weights(codes_of<Codes>(words[eight * 2 + pair / 2], pair % 2)); };
      to[eight * kGroup] = make_uint4(two(0), two(1), two(2), two(3));
    }
  }

  const SegmentPlace all_;
  const int n_blocks_;
};

// Calls f(GroupCodes<..>) for a group of a quantized part.
template <typename F>
__device__ void with_group_codes(const TensorPart& part, int group, F f) {
  with_codes(part.dtype, [&](auto codes) {
    if constexpr (kIsQuantized<decltype(codes)>) f(GroupCodes<decltype(codes)>(part.w, group));
  });
}

}  // namespace llorch::cuda
