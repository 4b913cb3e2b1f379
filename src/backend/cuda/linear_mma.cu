// Linear of many rows on the tensor cores of devices without wgmma: tiles, stages, sums and what becomes of them are
// those of tensor_block.h, products are a warp's (mma.sync), and 99 KB of shared memory, those of compute capability
// 8.6, are enough.
//
// Eight warps do all together: ask for a stage while they multiply the one before, a group each and a share of the
// rows; quantized codes they then round to f16.
#include "backend/cuda/group_codes.h"
#include "backend/cuda/mma.h"

namespace llorch::cuda {
namespace {

constexpr int kThreads = kTileWarps * kWarp;
constexpr int kSlots = 2;
static_assert(kTileWarps == kTileGroups);

template <int kRows, bool kOfBlocks>
struct Shared {
  unsigned char weights[kOfBlocks ? 1 : kSlots][kWeightStage];  // later the warps' corners for what they store
  unsigned char rows[kSlots][kStageUnits * kRows * kUnitBytes];
  unsigned char asked[kOfBlocks ? kSlots : 1][kTileGroups][kOfBlocks ? kAskedBytes : 1];

  __device__ float* corner() {
    constexpr int kCorner = kCornerRows * kCornerWidth;
    static_assert(sizeof(float) * kCorner * kTileWarps <= kWeightStage);
    return reinterpret_cast<float*>(weights[0]) + warp_id() * kCorner;
  }
};

// What a warp has of an item: a group of weights.
struct WarpGroup {
  const TensorPart* part = nullptr;  // null: the tile has none there
  int group = 0;

  __device__ WarpGroup(const TensorLinearArgs& a, const Item& item) {
    const GroupPlace place = find_group(a, item.group_tile, warp_id());
    if (place.part >= 0) part = &a.parts[place.part], group = place.group;
  }
  template <typename F>
  __device__ void with_its_codes(F f) const {
    if (part != nullptr) with_group_codes(*part, group, f);
  }
};

// Asks for a stage of the item: one group of copies; none behind the last.
template <int kRows, bool kOfBlocks>
__device__ void ask(const TensorLinearArgs& a, const Work& work, const Item& item, const WarpGroup& mine, int stage,
                    Shared<kRows, kOfBlocks>& shared) {
  if (stage < item.n_stages) {
    const int slot = stage % kSlots, first_unit = (item.first_stage + stage) * kStageUnits;
    if constexpr (kOfBlocks) {
      mine.with_its_codes([&](const auto& codes) {
        codes.ask_for(first_unit * kHalvesPerUnit / kQuantBlock, shared.asked[slot][warp_id()]);
      });
    } else if (mine.part != nullptr) {
      const uint4* from = mine.part->w.units + (size_t(mine.group) * work.n_units + first_unit) * kGroup + lane_id();
      auto* to = reinterpret_cast<uint4*>(shared.weights[slot] + warp_id() * kGroupStage) + lane_id();
#pragma unroll
      for (int unit = 0; unit < kStageUnits; ++unit) {
        if (first_unit + unit < work.n_units)
          copy_16(to + unit * kGroup, from + unit * kGroup);
        else
          to[unit * kGroup] = make_uint4(0, 0, 0, 0);
      }
    }
    const uint4* rows = a.x.units + (size_t(item.row_tile) * a.x.n_units + first_unit) * kRows;
    auto* to = reinterpret_cast<uint4*>(shared.rows[slot]);
    for (int i = static_cast<int>(threadIdx.x); i < kStageUnits * kRows; i += kThreads) copy_16(to + i, rows + i);
  }
  commit_copies();
}

// As multiply_stage() of tensor_block.h: a warp has the rows of two groups in each core matrix of its warpgroup.
template <DType kType, int kRows>
__device__ void multiply_stage(const unsigned char* weights, const unsigned char* rows, Sums<kRows>& sums) {
  const int warpgroup = warp_id() / 4, group = warp_id() % 4 * 2, matrix = lane_id() / 8, row = lane_id() % 8;
#pragma unroll
  for (int unit = 0; unit < kStageUnits; unit += 2) {
    unsigned x[kCores][4];
#pragma unroll
    for (int core = 0; core < kCores; ++core)
      load_matrices<false>(x[core],
                           weights + (group + matrix % 2) * kGroupStage +
                               ((unit + matrix / 2) * kGroup + (warpgroup * kCores + core) * 8 + row) * kUnitBytes);
#pragma unroll
    for (int j = 0; j < kRows / 8; j += 2) {
      unsigned y[4];
      load_matrices<false>(y, rows + ((unit + matrix % 2) * kRows + (j + matrix / 2) * 8 + row) * kUnitBytes);
#pragma unroll
      for (int core = 0; core < kCores; ++core)
#pragma unroll
        for (int i = 0; i < 2; ++i)
          multiply_add<kType>(reinterpret_cast<float(&)[4]>(sums[core][(j + i) * 4]), x[core], y[2 * i], y[2 * i + 1]);
    }
  }
}

template <DType kType, int kRows, bool kOfBlocks>
__global__ void __launch_bounds__(kThreads) linear_mma_kernel(const __grid_constant__ TensorLinearArgs a) {
  auto& shared = *reinterpret_cast<Shared<kRows, kOfBlocks>*>(shared_memory());
  const Work work(a, kRows);
  wait_for_inputs();
  for (int index = static_cast<int>(blockIdx.x); index < work.n_items; index += static_cast<int>(gridDim.x)) {
    const Item item(work, index);
    const WarpGroup mine(a, item);
    Sums<kRows> sums;
#pragma unroll
    for (auto& core : sums)
#pragma unroll
      for (float& sum : core) sum = 0.0f;
    ask(a, work, item, mine, 0, shared);
    for (int stage = 0; stage < item.n_stages; ++stage) {
      ask(a, work, item, mine, stage + 1, shared);
      wait_for_copies<1>();
      __syncthreads();
      const unsigned char* weights = shared.weights[kOfBlocks ? 0 : stage % kSlots];
      if constexpr (kOfBlocks) {
        mine.with_its_codes([&](const auto& codes) {
          codes.widen((item.first_stage + stage) * kStageUnits * kHalvesPerUnit / kQuantBlock,
                      shared.asked[stage % kSlots][warp_id()], inverse_of_power(mine.part->scale),
                      reinterpret_cast<uint4*>(shared.weights[0] + warp_id() * kGroupStage) + lane_id());
        });
        __syncthreads();
      }
      multiply_stage<kType, kRows>(weights, shared.rows[stage % kSlots], sums);
      __syncthreads();
    }
    if (a.n_shares == 1 || a.leaves_shares || join_shares<kRows>(a, item, index, sums)) {
      if (a.gated.units != nullptr)
        store_gated<kType, kRows>(a, item, sums);
      else
        store_sums<kRows>(a, item, sums, shared.corner());
    }
    __syncthreads();  // corners are weights again
  }
}

template <DType kType, bool kOfBlocks>
void start(const KernelStream& stream, const TensorLinearArgs& args) {
  if (args.x.tile_rows == 32)
    return launch_tiles<Shared<32, kOfBlocks>, kThreads>(stream, 32, linear_mma_kernel<kType, 32, kOfBlocks>, args);
  launch_tiles<Shared<kMmaTileRows, kOfBlocks>, kThreads>(stream, kMmaTileRows,
                                                          linear_mma_kernel<kType, kMmaTileRows, kOfBlocks>, args);
}

}  // namespace

void linear_with_mma(const KernelStream& stream, const TensorLinearArgs& args) {
  const DType dtype = args.parts[0].dtype;
  if (is_quantized(dtype)) return start<DType::kF16, true>(stream, args);
  if (dtype == DType::kBF16) return start<DType::kBF16, false>(stream, args);
  start<DType::kF16, false>(stream, args);
}

}  // namespace llorch::cuda
