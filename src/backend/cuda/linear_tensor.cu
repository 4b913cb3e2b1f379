// Linear of many rows on tensor cores: weights as they lie (codes.h), times activations of 16 bits, sums in float32.
//
// A block makes 256 outputs (8 groups) of 32, 64, 96 or 128 rows. One warp copies stages of 64 of K into a ring in
// shared memory; two warpgroups multiply. A group's stage is one contiguous piece of 4 KB, [8 units][32 rows][16
// bytes]: four core matrices a unit. A product of 64 outputs takes the same core matrix c of all eight groups, because
// these lie in even steps; so its row i * 8 + r is output c * 8 + r of group i. Each warpgroup has two of the four c.
//
// Every output's sum runs through K in ascending steps of 16 in one accumulator; where there are too few tiles to fill
// the device, through each share of K, and these are added in ascending order (tensor_shares.h). How many shares there
// are follows from shapes and the device (tiling.h), not from what is in the rows.
#include "backend/cuda/launch.h"
#include "backend/cuda/linear_tensor.h"
#include "backend/cuda/tensor_shares.h"

namespace llorch::cuda {
namespace {

// The stages of a block, one after another.
template <int kRows>
class Cursor {
 public:
  __device__ Cursor(const TensorLinearArgs& a, const Work& work)
      : a_(a), work_(work), index_(static_cast<int>(blockIdx.x)), item_(work, index_) {
    open();
  }

  __device__ bool is_open() const { return index_ < work_.n_items; }
  __device__ void next() {
    ++count_;
    if (++stage_ < item_.n_stages) return;
    index_ += static_cast<int>(gridDim.x);
    if (!is_open()) return;
    item_ = Item(work_, index_);
    open();
  }

  // Lane i < 8 asks for a group's weights, and the first says what will come.
  __device__ void copy_weights(Ring<kRows>& ring) const {
    const int slot = count_ % Ring<kRows>::kStages, lane = lane_id();
    wait_for(ring.empty[slot], static_cast<unsigned>(count_ / Ring<kRows>::kStages + 1) & 1u);
    if (lane == 0)
      arrive_and_expect(ring.full[slot], static_cast<unsigned>(n_groups_) * kGroupStage + Ring<kRows>::kRowStage);
    __syncwarp();
    if (weights_ == nullptr) return;
    const int first = (item_.first_stage + stage_) * kStageUnits, left = work_.n_units - first;
    const unsigned bytes = static_cast<unsigned>((left < kStageUnits ? left : kStageUnits) * kGroup * kUnitBytes);
    unsigned char* to = ring.weights[slot] + lane * kGroupStage;
    copy_bulk(to, weights_ + size_t(first) * kGroup, bytes, ring.full[slot]);
    if (bytes < kGroupStage) copy_bulk(to + bytes, a_.zeros, kGroupStage - bytes, ring.full[slot]);
  }

  // Lane 8 asks for the rows.
  __device__ void copy_rows(Ring<kRows>& ring) const {
    if (lane_id() != kTileGroups) return;
    const int slot = count_ % Ring<kRows>::kStages;
    const size_t unit = size_t(item_.row_tile) * a_.x.n_units + (item_.first_stage + stage_) * kStageUnits;
    copy_bulk(ring.rows[slot], a_.x.units + unit * kRows, Ring<kRows>::kRowStage, ring.full[slot]);
  }

 private:
  __device__ void open() {
    stage_ = n_groups_ = 0;
    weights_ = nullptr;
    for (int slot = 0; slot < kTileGroups; ++slot) {
      const GroupPlace place = find_group(a_, item_.group_tile, slot);
      if (place.part < 0) continue;
      ++n_groups_;
      if (slot == lane_id()) weights_ = a_.parts[place.part].w.units + size_t(place.group) * work_.n_units * kGroup;
    }
  }

  const TensorLinearArgs& a_;
  const Work& work_;
  int index_, count_ = 0, stage_ = 0, n_groups_ = 0;
  Item item_;
  const uint4* weights_ = nullptr;  // of the lane's group
};

// The warp that copies. Weights are nobody's output: a ring full of them is asked for before anything is waited for.
template <int kRows>
__device__ void copy_stages(const TensorLinearArgs& a, Ring<kRows>& ring) {
  const Work work(a, kRows);
  Cursor<kRows> weights(a, work), rows(a, work);
  for (int i = 0; i < Ring<kRows>::kStages && weights.is_open(); ++i, weights.next()) weights.copy_weights(ring);
  wait_for_inputs();
  for (int i = 0; i < Ring<kRows>::kStages && rows.is_open(); ++i, rows.next()) rows.copy_rows(ring);
  for (; weights.is_open(); weights.next()) {
    weights.copy_weights(ring);
    weights.copy_rows(ring);
  }
}

template <DType kType, int kRows>
__device__ void multiply_stage(const Ring<kRows>& ring, int slot, bool keeps, Sums<kRows>& sums) {
  const int warpgroup = static_cast<int>(threadIdx.x) / kWarpgroup;
  begin_products();
#pragma unroll
  for (int unit = 0; unit < kStageUnits; unit += 2) {
    const CoreMatrices rows = {ring.rows[slot] + unit * kRows * kUnitBytes, 8 * kUnitBytes, kRows * kUnitBytes};
#pragma unroll
    for (int core = 0; core < kCores; ++core) {
      const CoreMatrices weights = {ring.weights[slot] + (unit * kGroup + (warpgroup * kCores + core) * 8) * kUnitBytes,
                                    kGroupStage, kGroup * kUnitBytes};
      multiply<kType, kRows>(sums[core], weights, rows, keeps || unit > 0);
    }
  }
  commit_products();
}

template <DType kType, int kRows>
__device__ void multiply_tiles(const TensorLinearArgs& a, Ring<kRows>& ring) {
  constexpr int kStages = Ring<kRows>::kStages;
  const Work work(a, kRows);
  wait_for_inputs();
  int i = 0;
  for (int index = static_cast<int>(blockIdx.x); index < work.n_items; index += static_cast<int>(gridDim.x)) {
    const Item item(work, index);
    Sums<kRows> sums;
    for (int stage = 0; stage < item.n_stages; ++stage, ++i) {
      wait_for(ring.full[i % kStages], static_cast<unsigned>(i / kStages) & 1u);
      multiply_stage<kType, kRows>(ring, i % kStages, stage > 0, sums);
      wait_for_products<1>();
      if (stage > 0 && lane_id() == 0) arrive(ring.empty[(i - 1) % kStages]);
    }
    wait_for_products<0>();
    if (lane_id() == 0) arrive(ring.empty[(i - 1) % kStages]);
    if (a.n_shares > 1 && !a.leaves_shares && !join_shares<kRows>(a, item, index, sums)) continue;
    if (a.gated.units != nullptr)
      store_gated<kType, kRows>(a, item, sums);
    else
      store_sums<kRows>(a, item, sums, ring.corners[warp_id()]);
  }
}

template <DType kType, int kRows>
__global__ void __launch_bounds__(kTensorThreads, 1) linear_tensor_kernel(const __grid_constant__ TensorLinearArgs a) {
  auto& ring = *reinterpret_cast<Ring<kRows>*>(shared_memory());
  if (threadIdx.x == 0) {
    for (int i = 0; i < Ring<kRows>::kStages; ++i) {
      init_barrier(ring.full[i], 1);
      init_barrier(ring.empty[i], kTileWarps);
    }
    publish_barriers();
  }
  __syncthreads();
  if (warp_id() >= kTileWarps) {
    give_registers<kProducerRegisters>();
    if (warp_id() == kTileWarps) copy_stages<kRows>(a, ring);
  } else {
    take_registers<kConsumerRegisters>();
    multiply_tiles<kType, kRows>(a, ring);
  }
}

template <DType kType, int kRows>
void start(const KernelStream& stream, const TensorLinearArgs& args) {
  const int items = divide_up(args.n_rows, kRows) * divide_up(args.n_groups, kTileGroups) * args.n_shares;
  const int blocks = items < stream.n_multiprocessors ? items : stream.n_multiprocessors;
  launch(stream, {dim3(static_cast<unsigned>(blocks)), kTensorThreads, sizeof(Ring<kRows>)},
         linear_tensor_kernel<kType, kRows>, args);
}

template <DType kType>
void choose_rows(const KernelStream& stream, const TensorLinearArgs& args) {
  if (args.x.tile_rows == 32) return start<kType, 32>(stream, args);
  if (args.x.tile_rows == 64) return start<kType, 64>(stream, args);
  if (args.x.tile_rows == 96) return start<kType, 96>(stream, args);
  start<kType, kTileRows>(stream, args);
}

}  // namespace

void linear_on_tensor_cores(const KernelStream& stream, DType dtype, const TensorLinearArgs& args) {
  if (dtype == DType::kBF16) return choose_rows<DType::kBF16>(stream, args);
  choose_rows<DType::kF16>(stream, args);
}

}  // namespace llorch::cuda
