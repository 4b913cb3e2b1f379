// What a block of the tensor cores' Linear does beside multiplying: its share of the work, and what it makes of the
// sums. For tensor_block.h.
#pragma once

#include "backend/cuda/half_rows.h"
#include "backend/cuda/tensor_core.h"
#include "backend/cuda/tensor_kernels.h"

namespace llorch::cuda {

inline constexpr int kConsumers = 2;  // warpgroups
static_assert(kTileWarps == kConsumers * kWarpgroup / kWarp);
inline constexpr int kCores = kGroup / 8 / kConsumers;  // core matrices of a group that a warpgroup has

inline constexpr int kCornerRows = 16, kCornerWidth = 32 + 4;  // floats; so that banks differ

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

// What there is to do: items, each a share of the stages of one tile; shares of a tile one behind another.
struct Work {
  int n_row_tiles, n_shares, n_items, n_stages, n_units;  // stages: of an item; units: of 8 weights, in K

  __device__ Work(const TensorLinearArgs& a, int rows)
      : n_row_tiles((a.n_rows + rows - 1) / rows),
        n_shares(a.n_shares),
        n_items(n_row_tiles * ((a.n_groups + kTileGroups - 1) / kTileGroups) * a.n_shares),
        n_stages(0),
        n_units(a.parts[0].w.cols / kHalvesPerUnit) {
    n_stages = ((n_units + kStageUnits - 1) / kStageUnits + n_shares - 1) / n_shares;
  }
};
struct Item {
  int share, row_tile, group_tile, first_stage, n_stages;

  __device__ Item(const Work& work, int index)
      : share(index % work.n_shares),
        row_tile(index / work.n_shares % work.n_row_tiles),
        group_tile(index / work.n_shares / work.n_row_tiles),
        first_stage(share * work.n_stages),
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

// Where a lane puts its share of a warp's outputs: four neighbouring ones of every fourth row.
struct LaneOutputs {
  float* y;  // of its first row
  float4 bias;
  float scale;  // of the weights
  int n;        // of the four, how many exist
  bool is_whole, accumulates;
};

// y, or the sums of a share of K that are left, of which the first has the bias.
template <int kRows>
__device__ LaneOutputs find_outputs(const TensorLinearArgs& a, const Item& item, const Mine& mine) {
  const int lane = lane_id(), half = lane % 8 / 4;
  const GroupPlace place = find_group(a, item.group_tile, mine.slot + half);
  const TensorPart& part = a.parts[place.part < 0 ? 0 : place.part];
  const int column = place.group * kGroup + mine.warpgroup * kCores * 8 + lane % 4 * 4;
  const int left = place.part < 0 ? 0 : part.w.rows - column;
  float* y = a.leaves_shares ? a.partial + size_t(item.share) * a.n_rows * a.y_width : a.y;
  const float* bias = a.leaves_shares && item.share > 0 ? nullptr : part.bias;
  const auto bias_of = [&](int i) { return bias != nullptr && i < left ? bias[column + i] : 0.0f; };
  return {y + size_t(item.row_tile * kRows + lane / 8) * a.y_width + part.column + column,
          make_float4(bias_of(0), bias_of(1), bias_of(2), bias_of(3)),
          part.scale,
          left < 0   ? 0
          : left < 4 ? left
                     : 4,
          left >= 4 && (a.y_width | part.column) % 4 == 0,
          a.accumulate && !a.leaves_shares};
}

// The way of the last columns, and of those that are not aligned: not inlined, because this code is unrolled.
__device__ __noinline__ inline void store_few(float* y, float4 sum, int n, bool accumulates) {
  const float all[4] = {sum.x, sum.y, sum.z, sum.w};
  for (int i = 0; i < n; ++i) y[i] = accumulates ? __fadd_rn(y[i], all[i]) : all[i];
}

// Bias, then residual, then out. A warp's outputs go 16 rows at a time through its own corner of shared memory, so that
// they are read and written in pieces of 64 bytes. Sums are in registers, so all is unrolled: kept short, because
// instructions that run once a tile come from memory (with each row's checks unrolled it took 25 us longer).
template <int kRows>
__device__ void store_sums(const TensorLinearArgs& a, const Item& item, const Sums<kRows>& sums, float* corner) {
  const Mine mine = find_mine();
  const LaneOutputs to = find_outputs<kRows>(a, item, mine);
  const int first_row = item.row_tile * kRows + lane_id() / 8;
  float* const write = corner + mine.row * kCornerWidth + mine.r;
  const float* const read = corner + lane_id() / 8 * kCornerWidth + lane_id() % 8 * 4;
  float* y = to.y;
#pragma unroll
  for (int chunk = 0; chunk < kRows / kCornerRows; ++chunk) {
    float4 before[kCornerRows / 4];
    float scale[kCornerRows / 4];
#pragma unroll
    for (int i = 0; i < kCornerRows / 4; ++i) {
      const int row = chunk * kCornerRows + i * 4;
      scale[i] = __fmul_rn(__ldg(a.x.scale + first_row + row), to.scale);
      if (to.accumulates && to.is_whole && first_row + row < a.n_rows)
        before[i] = *reinterpret_cast<const float4*>(y + size_t(i * 4) * a.y_width);
    }
#pragma unroll
    for (int core = 0; core < kCores; ++core)
#pragma unroll
      for (int i = 0; i < kCornerRows / 2; ++i)  // two outputs, r and r + 8 of the product, of each row
        write[(i / 4 * 8 + i % 2) * kCornerWidth + i % 4 / 2 * 16 + core * 8] = sums[core][chunk * kCornerRows / 2 + i];
    __syncwarp();
#pragma unroll
    for (int i = 0; i < kCornerRows / 4; ++i, y += size_t(4) * a.y_width) {
      const int row = chunk * kCornerRows + i * 4;
      float4 sum = *reinterpret_cast<const float4*>(read + i * 4 * kCornerWidth);
      if (first_row + row >= a.n_rows) continue;
      sum.x = __fmaf_rn(sum.x, scale[i], to.bias.x);
      sum.y = __fmaf_rn(sum.y, scale[i], to.bias.y);
      sum.z = __fmaf_rn(sum.z, scale[i], to.bias.z);
      sum.w = __fmaf_rn(sum.w, scale[i], to.bias.w);
      if (!to.is_whole) {
        store_few(y, sum, to.n, to.accumulates);
        continue;
      }
      if (to.accumulates) {
        sum.x = __fadd_rn(before[i].x, sum.x);
        sum.y = __fadd_rn(before[i].y, sum.y);
        sum.z = __fadd_rn(before[i].z, sum.z);
        sum.w = __fadd_rn(before[i].w, sum.w);
      }
      __stcg(reinterpret_cast<float4*>(y), sum);  // an assignment becomes four stores of 4 bytes
    }
    __syncwarp();
  }
}

// silu(gate) * up into the rows that the next product reads, and zeros to the end of its last stage. These rows may lie
// in tiles of another size.
template <DType kType, int kRows>
__device__ void store_gated(const TensorLinearArgs& a, const Item& item, const Sums<kRows>& sums) {
  const int first_row = item.row_tile * kRows;
  const Mine mine = find_mine();
  const int group = item.group_tile * (kTileGroups / 2) + mine.slot / 2;
  if (group * 4 >= a.gated.n_units) return;
  float bias[kCores][2];
  bool has[kCores];
#pragma unroll
  for (int core = 0; core < kCores; ++core) {
    const int column = group * kGroup + (mine.warpgroup * kCores + core) * 8 + mine.r;
    has[core] = column < a.parts[0].w.rows;
#pragma unroll
    for (int i = 0; i < 2; ++i)
      bias[core][i] = has[core] && a.parts[i].bias != nullptr ? a.parts[i].bias[column] : 0.0f;
  }
  // Lanes r and r ^ 1 swap, so that each has two neighbouring elements of one row.
  const bool odd = mine.r % 2 != 0;
  const int unit = group * 4 + mine.warpgroup * kCores, tile_rows = a.gated.tile_rows;
  int in_tile = first_row % tile_rows;
  unsigned* to = reinterpret_cast<unsigned*>(a.gated.units + size_t(first_row - in_tile) * a.gated.n_units +
                                             unit * tile_rows + in_tile + mine.row + (odd ? 1 : 0)) +
                 mine.r / 2;
#pragma unroll
  for (int i = 0; i < kRows / 8; ++i) {
    if (i > 0 && i % (kRowSteps / 8) == 0 && (in_tile += kRowSteps) == tile_rows) {
      in_tile = 0;
      to += size_t(a.gated.n_units - 1) * tile_rows * 4;
    }
    const float2 scale = __ldg(reinterpret_cast<const float2*>(a.x.scale + first_row + mine.row) + i * 4);
    const float2 gated = __ldg(reinterpret_cast<const float2*>(a.gated.scale + first_row + mine.row) + i * 4);
    const float inverse[2] = {inverse_of_power(gated.x), inverse_of_power(gated.y)};
#pragma unroll
    for (int core = 0; core < kCores; ++core) {
      float act[2];
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        const float s = j == 0 ? scale.x : scale.y;
        const float gate = __fmaf_rn(sums[core][i * 4 + j], __fmul_rn(s, a.parts[0].scale), bias[core][0]);
        const float up = __fmaf_rn(sums[core][i * 4 + 2 + j], __fmul_rn(s, a.parts[1].scale), bias[core][1]);
        act[j] = has[core] ? __fmul_rn(__fmul_rn(quick_silu(gate), up), inverse[j]) : 0.0f;
      }
      const float other = __shfl_xor_sync(kAllLanes, odd ? act[0] : act[1], 4);
      to[(core * tile_rows + i * 8) * 4] =
          odd ? round_to_halves<kType>(other, act[1]) : round_to_halves<kType>(act[0], other);
    }
  }
}

}  // namespace llorch::cuda
