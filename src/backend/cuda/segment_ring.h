// A warp's ring of segments of quantized weights in shared memory. For kernels.
//
// On devices of compute capability 9.0 bulk copies fill it. They pass by the queue of a multiprocessor's loads: where
// each lane copies its own 16 bytes at a time, what the kernel before reads and writes waits behind all the weights
// that are on their way. Other devices copy lane by lane.
#pragma once

#include "backend/cuda/async_copy.h"
#include "backend/cuda/scales.h"
#include "backend/cuda/tensor_core.h"

namespace llorch::cuda {

// Of a segment of a row of `cols`; 0 or less behind the row's end.
__device__ inline int blocks_of(int cols, int segment) {
  const int left = cols / kQuantBlock - segment * kBlocksPerSegment;
  return left < kBlocksPerSegment ? left : kBlocksPerSegment;
}

// A segment of 32 outputs, or two of 16, as on the device, without the other segments; then the slot's barrier.
template <typename Codes>
struct SegmentBytes {
  static constexpr uint32_t kUnit = kGroup * sizeof(uint4), kD = kGroup * sizeof(uint16_t);  // of all lanes
  static constexpr uint32_t kHighsAt = kBlocksPerSegment * Codes::kUnits * kUnit;
  static constexpr uint32_t kScalesAt = kHighsAt + Codes::kHighUnits * kUnit;
  static constexpr uint32_t kDAt = kScalesAt + Codes::Scales::kUnits * kUnit;
  static constexpr uint32_t kBarrierAt = kDAt + (Codes::Scales::kHasD ? kD : 0);
  static constexpr uint32_t kAll = kBarrierAt + sizeof(uint4);
};

template <typename Codes>
class SegmentRing {
  using Bytes = SegmentBytes<Codes>;
  using Scales = typename Codes::Scales;
  static constexpr int kRowUnits = kBlocksPerSegment * Codes::kUnits;
#if defined(__CUDACC__)
  static constexpr bool kInBulk = LLORCH_HAS_WGMMA != 0;
#else
  static constexpr bool kInBulk = true;
#endif

 public:
  // n_slots: 1 or 2. By all lanes, as all that follows.
  __device__ SegmentRing(uint32_t memory, int n_slots) : memory_(memory), n_slots_(n_slots) {
    if constexpr (kInBulk) {
      if (lane_id() < n_slots) init_barrier(barrier(lane_id()), 1);
      publish_barriers();
      __syncwarp();
    }
  }

  // Where the visit-th segment that was asked for lies.
  __device__ uint32_t slot(int visit) const {
    return memory_ + static_cast<uint32_t>(n_slots_ == 1 ? 0 : visit % 2) * Bytes::kAll;
  }
  // The lane's part of it.
  __device__ static SegmentPlace place(uint32_t slot) { return place_of(slot, lane_id()); }

  // Outputs from `column` on; with `halves` 16 of them, of two segments.
  __device__ void ask(const MatrixView& w, int column, int segment, bool halves) {
    if constexpr (kInBulk)
      ask_in_bulk(w, column, segment, halves);
    else
      ask_by_lanes(w, column, segment, halves);
    ++n_asked_;
  }
  // Keeps the count of groups of copies.
  __device__ void ask_for_none() const {
    if constexpr (!kInBulk) commit_copies();
  }
  __device__ void wait(int visit) const {
    if constexpr (kInBulk)
      wait_for(barrier(visit), static_cast<unsigned>(n_slots_ == 1 ? visit : visit / 2) & 1u);
    else if (n_slots_ > 1)
      wait_for_copies<1>();
    else
      wait_for_copies<0>();
  }
  // For copies that the thread asked for before the ring's n_slots first ones.
  __device__ void wait_for_earlier_copies() const {
    if (kInBulk)
      wait_for_copies<0>();
    else if (n_slots_ > 1)
      wait_for_copies<2>();
    else
      wait_for_copies<1>();
  }

 private:
  __device__ Barrier& barrier(int visit) const { return *shared<Barrier>(slot(visit) + Bytes::kBarrierAt); }
  template <typename T>
  __device__ static T* shared(uint32_t byte) {
    return reinterpret_cast<T*>(shared_memory() + byte);
  }
  __device__ static SegmentPlace place_of(uint32_t slot, int lane) {
    return {shared<uint4>(slot) + lane, shared<uint4>(slot + Bytes::kHighsAt) + lane,
            shared<uint4>(slot + Bytes::kScalesAt) + lane, shared<uint16_t>(slot + Bytes::kDAt) + lane};
  }

  // A segment of a whole group lies in one piece on both sides; of half a group each unit is a piece.
  __device__ void ask_in_bulk(const MatrixView& w, int column, int segment, bool halves) const {
    const uint32_t to_slot = slot(n_asked_);
    Barrier& done = barrier(n_asked_);
    const int shift = halves ? 1 : 0, n_parts = 1 << shift, lane = lane_id();
    const uint32_t unit_bytes = Bytes::kUnit >> shift, d_bytes = Scales::kHasD ? Bytes::kD >> shift : 0;
    if (lane == 0) {
      uint32_t bytes = 0;
      for (int part = 0; part < n_parts; ++part)
        if (const int n = blocks_of(w.cols, segment + part); n > 0)
          bytes += static_cast<uint32_t>(n * Codes::kUnits + Codes::kHighUnits + Scales::kUnits) * unit_bytes + d_bytes;
      arrive_and_expect(done, bytes);
    }
    // Units of the row, high bits, scales, d: each lane asks for a piece.
    const int row_pieces = halves ? kRowUnits : 1, high_pieces = halves ? Codes::kHighUnits : Codes::kHighUnits > 0;
    const int scale_pieces = halves ? Scales::kUnits : 1, before_scales = row_pieces + high_pieces;
    const int n_pieces = before_scales + scale_pieces + (Scales::kHasD ? 1 : 0);
#pragma unroll 1
    for (int i = lane; i < n_pieces * n_parts; i += kWarp) {
      const int part = i & (n_parts - 1), piece = i >> shift, n_blocks = blocks_of(w.cols, segment + part);
      if (n_blocks <= 0) continue;
      const SegmentPlace from = segment_place<Codes>(w, column / kGroup, segment + part, column % kGroup),
                         to = place_of(to_slot, part * (kGroup / 2));
      const auto copy = [&](uint4* to_units, const uint4* from_units, int first, int n) {
        copy_bulk(to_units + first * kGroup, from_units + first * kGroup,
                  static_cast<uint32_t>(halves ? 1 : n) * unit_bytes, done);
      };
      if (piece < row_pieces) {
        if (!halves || piece < n_blocks * Codes::kUnits) copy(to.units, from.units, piece, n_blocks * Codes::kUnits);
      } else if (piece < before_scales) {
        copy(to.highs, from.highs, piece - row_pieces, Codes::kHighUnits);
      } else if (piece < before_scales + scale_pieces) {
        copy(to.scales, from.scales, piece - before_scales, Scales::kUnits);
      } else {
        copy_bulk(to.d, from.d, d_bytes, done);
      }
    }
  }

  // One group of copies.
  __device__ void ask_by_lanes(const MatrixView& w, int column, int segment, bool halves) const {
    const int lanes = halves ? kGroup / 2 : kGroup, own = segment + lane_id() / lanes;
    const int n_blocks = blocks_of(w.cols, own);
    if (n_blocks > 0) {
      const SegmentPlace from = segment_place<Codes>(w, column / kGroup, own, column % kGroup + lane_id() % lanes),
                         to = place(slot(n_asked_));
#pragma unroll
      for (int i = 0; i < kRowUnits; ++i)
        if (i < n_blocks * Codes::kUnits) copy_16(to.units + i * kGroup, from.units + i * kGroup);
#pragma unroll
      for (int i = 0; i < Codes::kHighUnits; ++i) copy_16(to.highs + i * kGroup, from.highs + i * kGroup);
#pragma unroll
      for (int i = 0; i < Scales::kUnits; ++i) copy_16(to.scales + i * kGroup, from.scales + i * kGroup);
      if constexpr (Scales::kHasD)  // two lanes' at once
        if (lane_id() % 2 == 0) copy_4(to.d, from.d);
    }
    commit_copies();
  }

  const uint32_t memory_;
  const int n_slots_;
  int n_asked_ = 0;
};

}  // namespace llorch::cuda
