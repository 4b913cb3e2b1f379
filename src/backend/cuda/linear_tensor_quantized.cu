// Linear of many rows on tensor cores, with block-quantized weights: a stage's codes are divided by a power of two of
// their matrix, so that nothing overflows, and rounded to f16 on their way into the ring. Of a tile each group may have
// a type of its own.
//
// Eight warps widen a group each, a lane a row. Codes come through a ring of their own, in which a lane reads what it
// has asked for itself: stages ahead, so that memory is busy while it computes. That takes about as long as products
// with 128 rows and goes on beside them: a matrix is widened anew for each tile of rows instead of written to memory
// and read again.
#include "backend/cuda/group_codes.h"

namespace llorch::cuda {
namespace {

constexpr int kThreads = 2 * kConsumers * kWarpgroup;
constexpr int kConsumerRegisters = 208, kProducerRegisters = 48;  // of 65536 / kThreads = 128
constexpr int kAskedStages = 3;

template <int kRows>
struct Widening {
  Ring<kRows, (kRows > 32 ? 3 : 4)> ring;
  unsigned char asked[kTileGroups][kAskedStages][kAskedBytes];
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
      with_group_codes(part, place.group, [&](const auto& codes) { widen_item(codes, inverse_of_power(part.scale)); });
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
