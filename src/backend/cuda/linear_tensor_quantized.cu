// Linear of many rows on tensor cores, with block-quantized weights: a stage's codes are divided by a power of two of
// their matrix, so that nothing overflows, and rounded to f16 on their way into the ring. Of a tile each group may have
// a type of its own.
//
// Eight warps widen a group each, a lane a row. Codes come through a ring of their
// own, in which a lane reads what it has asked for itself: stages ahead, so that memory is busy while it computes.
// That takes half as long as products with 128 rows, so a matrix is widened anew for each tile of rows instead of
// written to memory and read again.
#include "backend/cuda/async_copy.h"
#include "backend/cuda/half_rows.h"
#include "backend/cuda/tensor_block.h"
#include "backend/cuda/widen.h"

namespace llorch::cuda {
namespace {

constexpr int kThreads = 2 * kConsumers * kWarpgroup;
constexpr int kConsumerRegisters = 208, kProducerRegisters = 48;  // of 65536 / kThreads = 128
constexpr int kStageBlocks = kStageUnits * kHalvesPerUnit / kQuantBlock;
constexpr int kAskedStages = 3;
constexpr int kAskedUnits = 5, kAskedBytes = kAskedUnits * kGroup * kUnitBytes + kGroup * 2;  // a group's, at most

template <int kRows>
struct Widening {
  Ring<kRows, (kRows > 32 ? 3 : 4)> ring;
  unsigned char asked[kTileGroups][kAskedStages][kAskedBytes];
};

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

// A warp that widens the groups in one slot of the tiles. What it reads is looked up once for each item: for each stage
// that took as long as widening. Nothing is asked for beyond an item: while its sums are stored there is time.
template <int kRows>
class Widener {
  using R = decltype(Widening<kRows>::ring);

 public:
  __device__ Widener(const TensorLinearArgs& a, const Work& work, int slot, Widening<kRows>& shared)
      : a_(a), shared_(shared), slot_(slot), brings_rows_(slot == 0 && lane_id() == 0), at_(work) {}

  // Weights are nobody's output: a ring full of them is made before rows are waited for.
  __device__ void run() {
    while (at_.is_open()) {
      const GroupPlace place = find_group(a_, at_.item.group_tile, slot_);
      if (place.part < 0) {
        do {
          take_place();
          give_place();
        } while (at_.next());
        continue;
      }
      const TensorPart& part = a_.parts[place.part];
      with_codes(part.dtype, [&](auto codes) {
        if constexpr (kIsQuantized<decltype(codes)>)
          widen_item(GroupCodes<decltype(codes)>(part.w, place.group), inverse_of_power(part.scale));
      });
    }
    if (!has_rows_) bring_first_rows();
  }

 private:
  // Asks for what is so many stages behind the cursor's: one group of copies; none behind the item's last.
  template <typename Codes>
  __device__ void ask(const GroupCodes<Codes>& codes, int ahead, unsigned char* asked) const {
    if (at_.stage + ahead < at_.item.n_stages) codes.ask_for(first_block() + ahead * kStageBlocks, asked);
    commit_copies();
  }

  template <typename Codes>
  __device__ void widen_item(const GroupCodes<Codes>& codes, float power) {
    unsigned char(*const asked)[kAskedBytes] = shared_.asked[slot_];
    for (int i = 0; i < kAskedStages; ++i) ask(codes, i, asked[i]);
    RingPlace<kAskedStages> place;
    do {
      take_place();
      wait_for_copies<kAskedStages - 1>();
      __syncwarp();
      codes.widen(first_block(), asked[place.slot], power,
                  reinterpret_cast<uint4*>(shared_.ring.weights[at_.place.slot] + slot_ * kGroupStage) + lane_id());
      give_place();
      ask(codes, kAskedStages, asked[place.slot]);
      place.next();
    } while (at_.next());
  }

  // The stage's place in the ring, and its rows.
  __device__ void take_place() {
    if (!has_rows_ && n_made_++ == R::kStages) bring_first_rows();
    at_.wait_for_place(shared_.ring);
    if (has_rows_) bring_rows(at_);
  }
  __device__ void give_place() const {
    publish_to_products();
    __syncwarp();
    if (lane_id() == 0) arrive(shared_.ring.full[at_.place.slot]);
  }

  __device__ void bring_rows(const StageCursor<R>& at) const {
    if (!brings_rows_) return;
    arrive_and_expect(shared_.ring.full[at.place.slot], R::kRowStage);
    at.copy_rows(a_, shared_.ring);
  }
  // Of the stages that have their weights.
  __device__ void bring_first_rows() {
    wait_for_inputs();
    has_rows_ = true;
    StageCursor<R> first(at_.work);
    for (int i = 0; i < R::kStages && first.is_open(); ++i, first.next()) bring_rows(first);
  }

  __device__ int first_block() const { return at_.first_unit() * kHalvesPerUnit / kQuantBlock; }

  const TensorLinearArgs& a_;
  Widening<kRows>& shared_;
  const int slot_;
  const bool brings_rows_;
  bool has_rows_ = false;
  int n_made_ = 0;  // stages without rows
  StageCursor<R> at_;
};

template <int kRows>
__global__ void __launch_bounds__(kThreads, 1)
    linear_tensor_quantized_kernel(const __grid_constant__ TensorLinearArgs a) {
  auto& shared = *reinterpret_cast<Widening<kRows>*>(shared_memory());
  shared.ring.begin(kTileGroups + 1);
  if (warp_id() >= kTileWarps) {
    give_registers<kProducerRegisters>();
    const Work work(a, kRows);
    Widener<kRows>(a, work, warp_id() - kTileWarps, shared).run();
  } else {
    take_registers<kConsumerRegisters>();
    multiply_tiles<DType::kF16>(a, shared.ring);
  }
}

}  // namespace

void linear_of_blocks_on_tensor_cores(const KernelStream& stream, const TensorLinearArgs& args) {
  with_tile_rows(args.x.tile_rows, [&](auto rows) {
    constexpr int kRows = decltype(rows)::value;
    launch_tiles<Widening<kRows>, kThreads>(stream, kRows, linear_tensor_quantized_kernel<kRows>, args);
  });
}

}  // namespace llorch::cuda
