// What a block of the tensor cores' Linear does beside multiplying: its ring of shared memory, its share of the work,
// and what it makes of the sums. For linear_tensor.cu.
#pragma once

#include "backend/cuda/half_rows.h"
#include "backend/cuda/tensor_kernels.h"
#include "backend/cuda/wgmma.h"

namespace llorch::cuda {

inline constexpr int kUnitBytes = 16;
inline constexpr int kConsumers = 2;  // warpgroups
inline constexpr int kTensorThreads = (kConsumers + 1) * kWarpgroup;
inline constexpr int kConsumerRegisters = 232, kProducerRegisters = 40;  // of 65536 / kThreads = 170
inline constexpr int kGroupStage = kStageUnits * kGroup * kUnitBytes;
inline constexpr int kWeightStage = kTileGroups * kGroupStage;
inline constexpr int kCores = kGroup / 8 / kConsumers;  // core matrices of a group that a warpgroup has

inline constexpr int kCornerRows = 16, kCornerWidth = 32 + 4;  // floats; so that banks differ

// kRows: of a tile. As many stages as shared memory holds, up to five.
template <int kRows>
struct Ring {
  static constexpr int kStages = kRows > 64 ? 4 : 5;
  static constexpr int kRowStage = kStageUnits * kRows * kUnitBytes;
  unsigned char weights[kStages][kWeightStage];
  unsigned char rows[kStages][kRowStage];
  float corners[kConsumers * kWarpgroup / kWarp][kCornerRows * kCornerWidth];  // of each warp, for what it stores
  Barrier full[kStages], empty[kStages];
};

// A group of 32 outputs in its part; part < 0: the matrices have none there.
struct GroupPlace {
  int part, group;
};
__device__ inline GroupPlace find_group(const TensorLinearArgs& a, int tile, int slot) {
  if (a.gated.units != nullptr) {  // gate and up side by side: the same thread has both
    const int group = tile * (kTileGroups / 2) + slot / 2;
    return group < a.parts[1].first_group ? GroupPlace{slot % 2, group} : GroupPlace{-1, 0};
  }
  const int group = tile * kTileGroups + slot;
  if (group >= a.n_groups) return {-1, 0};
  int i = 0;
  while (i + 1 < a.n_parts && group >= a.parts[i + 1].first_group) ++i;
  return {i, group - a.parts[i].first_group};
}

// What there is to do: items, each a share of the stages of one tile. Items of a tile that has several leave sums for
// add_splits().
struct Work {
  int n_row_tiles, n_splits, n_items, n_stages, n_units;  // stages: of an item; units: that the weights have

  __device__ Work(const TensorLinearArgs& a, int rows)
      : n_row_tiles((a.n_rows + rows - 1) / rows),
        n_splits(a.n_splits),
        n_items(n_row_tiles * ((a.n_groups + kTileGroups - 1) / kTileGroups) * a.n_splits),
        n_stages(0),
        n_units(a.parts[0].w.units_per_row) {
    n_stages = ((n_units + kStageUnits - 1) / kStageUnits + n_splits - 1) / n_splits;
  }
};
struct Item {
  int split, row_tile, group_tile, first_stage, n_stages;

  __device__ Item(const Work& work, int index)
      : split(index % work.n_splits),
        row_tile(index / work.n_splits % work.n_row_tiles),
        group_tile(index / work.n_splits / work.n_row_tiles),
        first_stage(split * work.n_stages),
        n_stages(0) {
    const int end = (work.n_units + kStageUnits - 1) / kStageUnits, left = end - first_stage;
    n_stages = left < work.n_stages ? left : work.n_stages;
  }
};

// What a thread has of a tile: outputs r and r + 8 (of two neighbouring slots) of each core matrix, in two of each
// eight rows.
template <int kRows>
using Sums = float[kCores][kRows / 2];

struct Mine {
  int warpgroup, slot, r, row;  // slot: the first of two; row: the first of two, in eight
};
__device__ inline Mine find_mine() {
  const int t = static_cast<int>(threadIdx.x) % kWarpgroup;
  return {static_cast<int>(threadIdx.x) / kWarpgroup, t / kWarp * 2, t % kWarp / 4, t % 4 * 2};
}

// Row i of those that a thread has.
__device__ inline int row_in_tile(const Mine& mine, int i) { return i / 2 * 8 + mine.row + i % 2; }

// Where sums go: y, or the sums of a split, of which the first has the bias.
struct Output {
  float* y;
  bool accumulates, has_bias;
};
__device__ inline Output output_of(const TensorLinearArgs& a, int split) {
  if (a.n_splits == 1) return {a.y, a.accumulate, true};
  return {a.partial + size_t(split) * a.n_rows * a.y_width, false, split == 0};
}

// A thread's four neighbouring outputs of a row: bias, then residual, then out. Some of the four may not exist.
struct Four {
  const TensorLinearArgs& a;
  const Output& out;
  const LinearPart& part;
  int row, column;  // of the part

  __device__ float* y() const { return out.y + size_t(row) * a.y_width + part.column + column; }
  __device__ bool is_whole() const { return column + 4 <= part.w.rows && (a.y_width | part.column) % 4 == 0; }
  __device__ float4 before() const {
    if (!out.accumulates || row >= a.n_rows) return make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    if (is_whole()) return *reinterpret_cast<const float4*>(y());
    float v[4] = {};
    for (int i = 0; i < 4; ++i)
      if (column + i < part.w.rows) v[i] = y()[i];
    return make_float4(v[0], v[1], v[2], v[3]);
  }
  __device__ float total(float sum, float scale, float before, int i) const {
    float total = __fmul_rn(sum, scale);
    if (out.has_bias && part.bias != nullptr && column + i < part.w.rows)
      total = __fadd_rn(total, part.bias[column + i]);
    return out.accumulates ? __fadd_rn(before, total) : total;
  }
  __device__ void store(const float4& sum, const float4& before) const {
    if (row >= a.n_rows) return;
    const float scale = a.x.scale[row];
    const float4 all = make_float4(total(sum.x, scale, before.x, 0), total(sum.y, scale, before.y, 1),
                                   total(sum.z, scale, before.z, 2), total(sum.w, scale, before.w, 3));
    if (is_whole()) {
      *reinterpret_cast<float4*>(y()) = all;
      return;
    }
    const float v[4] = {all.x, all.y, all.z, all.w};
    for (int i = 0; i < 4; ++i)
      if (column + i < part.w.rows) y()[i] = v[i];
  }
};

// A warp's outputs, 16 rows at a time, through its own corner of shared memory, so that they are read and written in
// pieces of 64 bytes.
template <int kRows>
__device__ void store_sums(const TensorLinearArgs& a, const Item& item, const Sums<kRows>& sums, float* corner) {
  const Output out = output_of(a, item.split);
  const int first_row = item.row_tile * kRows;
  const Mine mine = find_mine();
  const int half = lane_id() % 8 / 4;
  const GroupPlace place = find_group(a, item.group_tile, mine.slot + half);
  const LinearPart& part = a.parts[place.part < 0 ? 0 : place.part];
  const int column =
      place.part < 0 ? part.w.rows : place.group * kGroup + mine.warpgroup * kCores * 8 + lane_id() % 4 * 4;
#pragma unroll
  for (int chunk = 0; chunk < kRows / kCornerRows; ++chunk) {
    float4 before[kCornerRows / 4];
#pragma unroll
    for (int i = 0; i < kCornerRows / 4; ++i)
      before[i] = Four{a, out, part, first_row + chunk * kCornerRows + i * 4 + lane_id() / 8, column}.before();
#pragma unroll
    for (int core = 0; core < kCores; ++core)
#pragma unroll
      for (int i = 0; i < kCornerRows / 2; ++i)  // two outputs, r and r + 8 of the product, of each row
        corner[(i / 4 * 8 + mine.row + i % 2) * kCornerWidth + i % 4 / 2 * 16 + core * 8 + mine.r] =
            sums[core][chunk * kCornerRows / 2 + i];
    __syncwarp();
#pragma unroll
    for (int i = 0; i < kCornerRows / 4; ++i) {
      const int row = i * 4 + lane_id() / 8;
      const float4 sum = *reinterpret_cast<const float4*>(corner + row * kCornerWidth + lane_id() % 8 * 4);
      Four{a, out, part, first_row + chunk * kCornerRows + row, column}.store(sum, before[i]);
    }
    __syncwarp();
  }
}

// silu(gate) * up into the rows that the next product reads, and zeros to the end of its last stage.
template <DType kType, int kRows>
__device__ void store_gated(const TensorLinearArgs& a, const Item& item, const Sums<kRows>& sums) {
  const int first_row = item.row_tile * kRows;
  const Mine mine = find_mine();
  const int group = item.group_tile * (kTileGroups / 2) + mine.slot / 2;
  if (group * 4 >= a.gated.n_units) return;
#pragma unroll
  for (int core = 0; core < kCores; ++core) {
    const int in_group = (mine.warpgroup * kCores + core) * 8, column = group * kGroup + in_group + mine.r;
    const bool has = column < a.parts[0].w.rows;
    const float gate_bias = has && a.parts[0].bias != nullptr ? a.parts[0].bias[column] : 0.0f;
    const float up_bias = has && a.parts[1].bias != nullptr ? a.parts[1].bias[column] : 0.0f;
    uint4* units = a.gated.units + size_t(first_row) * a.gated.n_units + size_t(group * 4 + in_group / 8) * kRows;
#pragma unroll
    for (int i = 0; i < kRows / 8; ++i) {
      unsigned half[2];
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        const int row = first_row + row_in_tile(mine, 2 * i + j);
        const float scale = __ldg(a.x.scale + row), gated_scale = __ldg(a.gated.scale + row);
        const float gate = __fadd_rn(__fmul_rn(sums[core][i * 4 + j], scale), gate_bias);
        const float up = __fadd_rn(__fmul_rn(sums[core][i * 4 + 2 + j], scale), up_bias);
        const float act = __fmul_rn(__fmul_rn(quick_silu(gate), up), inverse_of_power(gated_scale));
        half[j] = has ? round_to_half<kType>(act) : 0u;
      }
      // Lanes r and r ^ 1 swap, so that each has two neighbouring elements of one row.
      const bool odd = mine.r % 2 != 0;
      const unsigned other = __shfl_xor_sync(kAllLanes, odd ? half[0] : half[1], 4);
      const unsigned word = odd ? other | half[1] << 16 : half[0] | other << 16;
      reinterpret_cast<unsigned*>(units + row_in_tile(mine, 2 * i) + (odd ? 1 : 0))[mine.r / 2] = word;
    }
  }
}

}  // namespace llorch::cuda
