// Linear of many rows on tensor cores: weights as they lie (codes.h), times activations of 16 bits, sums in float32.
//
// A block makes 256 outputs (8 groups) of 128 rows. One warp copies stages of 64 of K into a ring in shared memory; two
// warpgroups multiply. A group's stage is one contiguous piece of 4 KB, [8 units][32 rows][16 bytes]: four core
// matrices a unit. A product of 64 outputs takes the same core matrix c of all eight groups, because these lie in even
// steps; so its row i * 8 + r is output c * 8 + r of group i. Each warpgroup has two of the four c.
//
// Every output's sum runs through K in ascending steps of 16 in one accumulator, whatever else is in the batch.
#include "backend/cuda/half_rows.h"
#include "backend/cuda/launch.h"
#include "backend/cuda/tensor_kernels.h"
#include "backend/cuda/wgmma.h"
#include "base/exp.h"

namespace llorch::cuda {
namespace {

constexpr int kUnitBytes = 16;
constexpr int kStages = 4;
constexpr int kConsumers = 2;  // warpgroups
constexpr int kThreads = (kConsumers + 1) * kWarpgroup;
constexpr int kConsumerRegisters = 232, kProducerRegisters = 40;  // of 65536 / kThreads = 170
constexpr int kGroupStage = kStageUnits * kGroup * kUnitBytes;
constexpr int kWeightStage = kTileGroups * kGroupStage;
constexpr int kRowStage = kStageUnits * kTileRows * kUnitBytes;
constexpr int kCores = kGroup / 8 / kConsumers;  // core matrices of a group that a warpgroup has

constexpr int kCornerRows = 16, kCornerWidth = 32 + 4;  // floats; so that banks differ

struct Ring {
  unsigned char weights[kStages][kWeightStage];
  unsigned char rows[kStages][kRowStage];
  float corners[kConsumers * kWarpgroup / kWarp][kCornerRows * kCornerWidth];  // of each warp, for what it stores
  Barrier full[kStages], empty[kStages];
};

// A group of 32 outputs in its part; part < 0: the matrices have none there.
struct GroupPlace {
  int part, group;
};
__device__ GroupPlace find_group(const TensorLinearArgs& a, int tile, int slot) {
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

struct Work {
  int n_row_tiles, n_tiles, n_stages, n_units;  // units: that the weights have

  __device__ explicit Work(const TensorLinearArgs& a)
      : n_row_tiles((a.n_rows + kTileRows - 1) / kTileRows),
        n_tiles(n_row_tiles * ((a.n_groups + kTileGroups - 1) / kTileGroups)),
        n_stages((a.parts[0].w.units_per_row + kStageUnits - 1) / kStageUnits),
        n_units(a.parts[0].w.units_per_row) {}
};

// The warp that copies: lane i < 8 a group's weights, lane 8 the rows.
__device__ void copy_stages(const TensorLinearArgs& a, Ring& ring) {
  const Work work(a);
  const int lane = lane_id();
  int i = 0;  // stages so far
  for (int tile = static_cast<int>(blockIdx.x); tile < work.n_tiles; tile += static_cast<int>(gridDim.x)) {
    const int group_tile = tile / work.n_row_tiles, row_tile = tile % work.n_row_tiles;
    int n_groups = 0;
    const uint4* mine = nullptr;
    for (int slot = 0; slot < kTileGroups; ++slot) {
      const GroupPlace place = find_group(a, group_tile, slot);
      if (place.part < 0) continue;
      ++n_groups;
      if (slot == lane) mine = a.parts[place.part].w.units + size_t(place.group) * work.n_units * kGroup;
    }
    const uint4* rows = a.x.units + size_t(row_tile) * a.x.n_units * kTileRows;
    for (int stage = 0; stage < work.n_stages; ++stage, ++i) {
      const int slot = i % kStages;
      const int left = work.n_units - stage * kStageUnits;
      const unsigned bytes = static_cast<unsigned>((left < kStageUnits ? left : kStageUnits) * kGroup * kUnitBytes);
      unsigned char* weights = ring.weights[slot] + lane * kGroupStage;
      wait_for(ring.empty[slot], static_cast<unsigned>(i / kStages + 1) & 1u);
      if (lane == 0) arrive_and_expect(ring.full[slot], static_cast<unsigned>(n_groups) * kGroupStage + kRowStage);
      __syncwarp();
      if (mine != nullptr) {
        copy_bulk(weights, mine + size_t(stage) * kStageUnits * kGroup, bytes, ring.full[slot]);
        if (bytes < kGroupStage) copy_bulk(weights + bytes, a.zeros, kGroupStage - bytes, ring.full[slot]);
      }
      if (i == 0) wait_for_inputs();  // weights are nobody's output
      if (lane == kTileGroups)
        copy_bulk(ring.rows[slot], rows + size_t(stage) * kStageUnits * kTileRows, kRowStage, ring.full[slot]);
    }
  }
}

// What a thread has of a tile: outputs r and r + 8 (of two neighbouring slots) of each core matrix, in two of each
// eight rows.
using Sums = float[kCores][kTileRows / 2];

struct Mine {
  int warpgroup, slot, r, row;  // slot: the first of two; row: the first of two, in eight
};
__device__ Mine find_mine() {
  const int t = static_cast<int>(threadIdx.x) % kWarpgroup;
  return {static_cast<int>(threadIdx.x) / kWarpgroup, t / kWarp * 2, t % kWarp / 4, t % 4 * 2};
}

// Row i of those that a thread has.
__device__ int row_in_tile(const Mine& mine, int i) { return i / 2 * 8 + mine.row + i % 2; }

// A thread's four neighbouring outputs of a row: bias, then residual, then out. Some of the four may not exist.
struct Four {
  const TensorLinearArgs& a;
  const LinearPart& part;
  int row, column;  // of the part

  __device__ float* y() const { return a.y + size_t(row) * a.y_width + part.column + column; }
  __device__ bool is_whole() const { return column + 4 <= part.w.rows && (a.y_width | part.column) % 4 == 0; }
  __device__ float4 before() const {
    if (!a.accumulate || row >= a.n_rows) return make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    if (is_whole()) return *reinterpret_cast<const float4*>(y());
    float v[4] = {};
    for (int i = 0; i < 4; ++i)
      if (column + i < part.w.rows) v[i] = y()[i];
    return make_float4(v[0], v[1], v[2], v[3]);
  }
  __device__ float total(float sum, float scale, float before, int i) const {
    float total = __fmul_rn(sum, scale);
    if (part.bias != nullptr && column + i < part.w.rows) total = __fadd_rn(total, part.bias[column + i]);
    return a.accumulate ? __fadd_rn(before, total) : total;
  }
  __device__ void store(const float4& sum, const float4& before) const {
    if (row >= a.n_rows) return;
    const float scale = a.x.scale[row];
    const float4 out = make_float4(total(sum.x, scale, before.x, 0), total(sum.y, scale, before.y, 1),
                                   total(sum.z, scale, before.z, 2), total(sum.w, scale, before.w, 3));
    if (is_whole()) {
      *reinterpret_cast<float4*>(y()) = out;
      return;
    }
    const float v[4] = {out.x, out.y, out.z, out.w};
    for (int i = 0; i < 4; ++i)
      if (column + i < part.w.rows) y()[i] = v[i];
  }
};

// A warp's outputs, 16 rows at a time, through its own corner of shared memory, so that they are read and written in
// pieces of 64 bytes.
__device__ void store_sums(const TensorLinearArgs& a, int group_tile, int first_row, const Sums& sums, float* corner) {
  const Mine mine = find_mine();
  const int half = lane_id() % 8 / 4;
  const GroupPlace place = find_group(a, group_tile, mine.slot + half);
  const LinearPart& part = a.parts[place.part < 0 ? 0 : place.part];
  const int column =
      place.part < 0 ? part.w.rows : place.group * kGroup + mine.warpgroup * kCores * 8 + lane_id() % 4 * 4;
#pragma unroll
  for (int chunk = 0; chunk < kTileRows / kCornerRows; ++chunk) {
    float4 before[kCornerRows / 4];
#pragma unroll
    for (int i = 0; i < kCornerRows / 4; ++i)
      before[i] = Four{a, part, first_row + chunk * kCornerRows + i * 4 + lane_id() / 8, column}.before();
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
      Four{a, part, first_row + chunk * kCornerRows + row, column}.store(sum, before[i]);
    }
    __syncwarp();
  }
}

// silu(gate) * up into the rows that the next product reads, and zeros to the end of its last stage.
template <DType kType>
__device__ void store_gated(const TensorLinearArgs& a, int group_tile, int first_row, const Sums& sums) {
  const Mine mine = find_mine();
  const int group = group_tile * (kTileGroups / 2) + mine.slot / 2;
  if (group * 4 >= a.gated.n_units) return;
#pragma unroll
  for (int core = 0; core < kCores; ++core) {
    const int in_group = (mine.warpgroup * kCores + core) * 8, column = group * kGroup + in_group + mine.r;
    const bool has = column < a.parts[0].w.rows;
    const float gate_bias = has && a.parts[0].bias != nullptr ? a.parts[0].bias[column] : 0.0f;
    const float up_bias = has && a.parts[1].bias != nullptr ? a.parts[1].bias[column] : 0.0f;
    uint4* units = a.gated.units + size_t(first_row) * a.gated.n_units + size_t(group * 4 + in_group / 8) * kTileRows;
#pragma unroll
    for (int i = 0; i < kTileRows / 8; ++i) {
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

template <DType kType>
__device__ void multiply_tiles(const TensorLinearArgs& a, Ring& ring) {
  const Work work(a);
  const int warpgroup = static_cast<int>(threadIdx.x) / kWarpgroup;
  wait_for_inputs();
  int i = 0;
  for (int tile = static_cast<int>(blockIdx.x); tile < work.n_tiles; tile += static_cast<int>(gridDim.x)) {
    const int group_tile = tile / work.n_row_tiles, row_tile = tile % work.n_row_tiles;
    Sums sums;
    for (int stage = 0; stage < work.n_stages; ++stage, ++i) {
      const int slot = i % kStages;
      wait_for(ring.full[slot], static_cast<unsigned>(i / kStages) & 1u);
      begin_products();
#pragma unroll
      for (int unit = 0; unit < kStageUnits; unit += 2) {
        const CoreMatrices rows = {ring.rows[slot] + unit * kTileRows * kUnitBytes, 8 * kUnitBytes,
                                   kTileRows * kUnitBytes};
#pragma unroll
        for (int core = 0; core < kCores; ++core) {
          const CoreMatrices weights = {
              ring.weights[slot] + (unit * kGroup + (warpgroup * kCores + core) * 8) * kUnitBytes, kGroupStage,
              kGroup * kUnitBytes};
          multiply<kType, kTileRows>(sums[core], weights, rows, stage > 0 || unit > 0);
        }
      }
      commit_products();
      wait_for_products<1>();
      if (stage > 0 && lane_id() == 0) arrive(ring.empty[(i - 1) % kStages]);
    }
    wait_for_products<0>();
    if (lane_id() == 0) arrive(ring.empty[(i - 1) % kStages]);
    if (a.gated.units != nullptr)
      store_gated<kType>(a, group_tile, row_tile * kTileRows, sums);
    else
      store_sums(a, group_tile, row_tile * kTileRows, sums, ring.corners[warp_id()]);
  }
}

template <DType kType>
__global__ void __launch_bounds__(kThreads, 1) linear_tensor_kernel(const __grid_constant__ TensorLinearArgs a) {
  Ring& ring = *reinterpret_cast<Ring*>(shared_memory());
  if (threadIdx.x == 0) {
    for (int i = 0; i < kStages; ++i) {
      init_barrier(ring.full[i], 1);
      init_barrier(ring.empty[i], kConsumers * kWarpgroup / kWarp);
    }
    publish_barriers();
  }
  __syncthreads();
  if (warp_id() >= kConsumers * kWarpgroup / kWarp) {
    give_registers<kProducerRegisters>();
    if (warp_id() == kConsumers * kWarpgroup / kWarp) copy_stages(a, ring);
  } else {
    take_registers<kConsumerRegisters>();
    multiply_tiles<kType>(a, ring);
  }
}

template <DType kType>
void start(const KernelStream& stream, const TensorLinearArgs& args) {
  const auto kernel = linear_tensor_kernel<kType>;
  const int tiles = divide_up(args.n_rows, kTileRows) * divide_up(args.n_groups, kTileGroups);
  const int blocks = tiles < stream.n_multiprocessors ? tiles : stream.n_multiprocessors;
  launch(stream, {dim3(static_cast<unsigned>(blocks)), kThreads, sizeof(Ring)}, kernel, args);
}

}  // namespace

void linear_on_tensor_cores(const KernelStream& stream, DType dtype, const TensorLinearArgs& args) {
  if (dtype == DType::kBF16) return start<DType::kBF16>(stream, args);
  start<DType::kF16>(stream, args);
}

}  // namespace llorch::cuda
