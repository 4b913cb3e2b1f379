// How a block of the tensor cores' Linear works: some warps fill a ring of stages in shared memory, two warpgroups
// multiply what is in it. For linear_tensor.cu and linear_tensor_quantized.cu, which fill it in different ways.
//
// A block makes 256 outputs (8 groups) of 32, 64, 96 or 128 rows; a stage is 64 of K. A group's weights of a stage are
// [8 units][32 rows][16 bytes]: four core matrices a unit. A product of 64 outputs takes the same core matrix c of all
// eight groups, because these lie in even steps; so its row i * 8 + r is output c * 8 + r of group i. Each warpgroup
// has two of the four c.
//
// Every output's sum runs through K in ascending steps of 16 in one accumulator; where there are too few tiles to fill
// the device, through each share of K, and these are added in ascending order (tensor_shares.h). How many shares there
// are follows from shapes and the device (tiling.h), not from what is in the rows.
#pragma once

#include <type_traits>

#include "backend/cuda/launch.h"
#include "backend/cuda/linear_tensor.h"
#include "backend/cuda/tensor_shares.h"
#include "backend/cuda/wgmma.h"

namespace llorch::cuda {

inline constexpr int kUnitBytes = 16;
inline constexpr int kGroupStage = kStageUnits * kGroup * kUnitBytes;
inline constexpr int kWeightStage = kTileGroups * kGroupStage;

// kRows: of a tile.
template <int kRows, int kStageCount>
struct Ring {
  static constexpr int kTile = kRows, kStages = kStageCount;
  static constexpr int kRowStage = kStageUnits * kRows * kUnitBytes;
  unsigned char weights[kStages][kWeightStage];
  unsigned char rows[kStages][kRowStage];
  float corners[kTileWarps][kCornerRows * kCornerWidth];  // of each warp, for what it stores
  Barrier full[kStages], empty[kStages];

  // writers: arrivals that make a stage full. By all threads of the block.
  __device__ void begin(unsigned writers) {
    if (threadIdx.x == 0) {
      for (int i = 0; i < kStages; ++i) {
        init_barrier(full[i], writers);
        init_barrier(empty[i], kTileWarps);
      }
      publish_barriers();
    }
    __syncthreads();
  }
};

// Where one is in a ring of so many places.
template <int kPlaces>
struct RingPlace {
  int slot = 0;
  unsigned parity = 0;  // of the rounds that are over

  __device__ void next() {
    if (++slot < kPlaces) return;
    slot = 0;
    parity ^= 1;
  }
};

// The stages of a block, one after another.
template <typename R>
struct StageCursor {
  const Work& work;
  int index, stage = 0;  // of the item
  Item item;
  RingPlace<R::kStages> place;

  __device__ explicit StageCursor(const Work& w) : work(w), index(static_cast<int>(blockIdx.x)), item(w, index) {}
  __device__ bool is_open() const { return index < work.n_items; }
  __device__ int first_unit() const { return (item.first_stage + stage) * kStageUnits; }
  // Whether the item goes on.
  __device__ bool next() {
    place.next();
    if (++stage < item.n_stages) return true;
    stage = 0;
    index += static_cast<int>(gridDim.x);
    if (is_open()) item = Item(work, index);
    return false;
  }

  __device__ void wait_for_place(R& ring) const { wait_for(ring.empty[place.slot], place.parity ^ 1); }
  // Asks for the rows of the stage.
  __device__ void copy_rows(const TensorLinearArgs& a, R& ring) const {
    const size_t unit = size_t(item.row_tile) * a.x.n_units + first_unit();
    copy_bulk(ring.rows[place.slot], a.x.units + unit * R::kTile, R::kRowStage, ring.full[place.slot]);
  }
};

template <DType kType, typename R>
__device__ void multiply_stage(const R& ring, int slot, bool keeps, Sums<R::kTile>& sums) {
  const int warpgroup = static_cast<int>(threadIdx.x) / kWarpgroup;
  begin_products();
#pragma unroll
  for (int unit = 0; unit < kStageUnits; unit += 2) {
    const CoreMatrices rows = {ring.rows[slot] + unit * R::kTile * kUnitBytes, 8 * kUnitBytes, R::kTile * kUnitBytes};
#pragma unroll
    for (int core = 0; core < kCores; ++core) {
      const CoreMatrices weights = {ring.weights[slot] + (unit * kGroup + (warpgroup * kCores + core) * 8) * kUnitBytes,
                                    kGroupStage, kGroup * kUnitBytes};
      multiply<kType, R::kTile>(sums[core], weights, rows, keeps || unit > 0);
    }
  }
  commit_products();
}

// What the two warpgroups do.
template <DType kType, typename R>
__device__ void multiply_tiles(const TensorLinearArgs& a, R& ring) {
  constexpr int kRows = R::kTile;
  const Work work(a, kRows);
  wait_for_inputs();
  RingPlace<R::kStages> place;
  for (int index = static_cast<int>(blockIdx.x); index < work.n_items; index += static_cast<int>(gridDim.x)) {
    const Item item(work, index);
    Sums<kRows> sums;
    int before = 0;  // the slot of the stage before
    for (int stage = 0; stage < item.n_stages; ++stage, before = place.slot, place.next()) {
      wait_for(ring.full[place.slot], place.parity);
      multiply_stage<kType>(ring, place.slot, stage > 0, sums);
      wait_for_products<1>();
      if (stage > 0 && lane_id() == 0) arrive(ring.empty[before]);
    }
    wait_for_products<0>();
    if (lane_id() == 0) arrive(ring.empty[before]);
    if (a.n_shares > 1 && !a.leaves_shares && !join_shares<kRows>(a, item, index, sums)) continue;
    if (a.gated.units != nullptr)
      store_gated<kType, kRows>(a, item, sums);
    else
      store_sums<kRows>(a, item, sums, ring.corners[warp_id()]);
  }
}

template <typename Shared, int kThreads>
void launch_tiles(const KernelStream& stream, int tile_rows, void (*kernel)(TensorLinearArgs),
                  const TensorLinearArgs& args) {
  const int items = divide_up(args.n_rows, tile_rows) * divide_up(args.n_groups, kTileGroups) * args.n_shares;
  const int blocks = items < stream.n_multiprocessors ? items : stream.n_multiprocessors;
  launch(stream, {dim3(static_cast<unsigned>(blocks)), kThreads, sizeof(Shared)}, kernel, args);
}

// Calls f(std::integral_constant<int, rows>) with the rows of a tile.
template <typename F>
void with_tile_rows(int32_t rows, F f) {
  if (rows == 32) return f(std::integral_constant<int, 32>());
  if (rows == 64) return f(std::integral_constant<int, 64>());
  if (rows == 96) return f(std::integral_constant<int, 96>());
  f(std::integral_constant<int, kTileRows>());
}

}  // namespace llorch::cuda
