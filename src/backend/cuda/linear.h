// What the two kernels of Linear share. For .cu files.
//
// A block makes groups of 32 outputs of up to kRows rows, one group after another; a lane is an output, a warp takes a
// segment of 256 of K at a time and leaves its sum in shared memory; when a group's sums are there, they are added left
// to right. Weights go through a ring in shared memory that is the warp's own: a lane copies what it will read itself.
// The copies begin before the kernel waits for its inputs, and those of the next group before the last one is done, so
// that the device's memory is always at work. There are no more blocks than have room at once, as long as one tile has
// all rows: none has to make its input while its weights wait.
#pragma once

#include <type_traits>

#include "backend/cuda/async_copy.h"
#include "backend/cuda/codes.h"
#include "backend/cuda/launch.h"
#include "backend/cuda/prepare.h"

namespace llorch::cuda {

inline constexpr int kMaxLinearWarps = 24;
inline constexpr int kLinearThreads = kMaxLinearWarps * kWarp;
// Of one block: two have room beside each other on a multiprocessor of 227 KB, or, at most, one.
inline constexpr size_t kHalfShared = 112 << 10, kAllShared = 208 << 10, kSharedOfMultiprocessor = 227 << 10;

// Where things lie in a block's shared memory, as bytes from its beginning. Sums come first: two sets, used in turn,
// of [segments][kRows][32].
template <int kRows>
struct LinearShared {
  uint32_t gates, inverse, rows, norm, inputs, warps, bytes;

  // input_bytes: of a segment of kRows rows.
  __host__ __device__ LinearShared(const LinearArgs& a, int n_warps, uint32_t input_bytes, uint32_t bytes_per_warp) {
    const bool norms = a.x.prepare == Prepare::kRmsNorm && a.packed.q == nullptr;
    const auto row_bytes = norms ? static_cast<uint32_t>((a.x.cols + 3) / 4 * 16) : 0;
    const auto segments = static_cast<uint32_t>(a.parts[0].w.segments);
    constexpr uint32_t kOutputs = kRows * kGroup * sizeof(float);
    gates = 2 * segments * kOutputs;
    inverse = gates + (a.gates ? kOutputs : 0);
    rows = inverse + kMaxTileRows * sizeof(float);
    norm = rows + kRows * row_bytes;
    inputs = norm + row_bytes;
    warps = inputs + (a.keeps_input ? segments : static_cast<uint32_t>(n_warps)) * input_bytes;
    bytes = warps + static_cast<uint32_t>(n_warps) * bytes_per_warp;
  }
};

template <typename T>
__device__ T* shared_at(uint32_t byte) {
  return reinterpret_cast<T*>(shared_memory() + byte);
}

// One group of outputs.
struct Place {
  LinearPart part;
  int group;      // inside the part
  int first_row;  // of the tile
};

// The groups of a block: every gridDim.y-th, or, of gate and up, both of every gridDim.y-th pair.
__device__ inline int group_of(const LinearArgs& a, int task) {
  if (!a.gates) return static_cast<int>(blockIdx.y) + task * static_cast<int>(gridDim.y);
  return static_cast<int>(blockIdx.y) + task / 2 * static_cast<int>(gridDim.y) + task % 2 * (a.n_groups / 2);
}
__device__ inline int count_tasks(const LinearArgs& a) {
  const int n = a.gates ? a.n_groups / 2 : a.n_groups, blocks = static_cast<int>(gridDim.y);
  return (n - static_cast<int>(blockIdx.y) + blocks - 1) / blocks * (a.gates ? 2 : 1);
}

template <int kRows>
__device__ Place find_place(const LinearArgs& a, int task) {
  const int group = group_of(a, task);
  int i = 0;
  while (i + 1 < a.n_parts && group >= a.parts[i + 1].first_group) ++i;
  return {a.parts[i], group - a.parts[i].first_group, static_cast<int>(blockIdx.x) * kRows};
}

// The tile's row, or its last one again.
template <int kRows>
__device__ int clamped_row(const LinearArgs& a, int r) {
  const int row = static_cast<int>(blockIdx.x) * kRows + r;
  return row < a.n_rows ? row : a.n_rows - 1;
}

// The input of a tile's rows, where the block makes it itself.
template <int kRows>
struct TileInput {
  const LinearArgs& a;
  const LinearShared<kRows>& shared;

  __device__ bool norms() const { return a.x.prepare == Prepare::kRmsNorm && a.packed.q == nullptr; }

  // Before wait_for_inputs(): one group of copies.
  __device__ void ask_for_norm() const {
    if (norms())
      for (int k = static_cast<int>(threadIdx.x); k < a.x.cols; k += static_cast<int>(blockDim.x))
        copy_4(shared_at<float>(shared.norm) + k, a.x.norm_weight + k);
    commit_copies();
  }

  // After it, by all threads; norm's copies are there.
  __device__ void begin() const {
    if (!norms()) return;
    const int stride = (a.x.cols + 3) / 4 * 4;
    auto* rows = shared_at<float>(shared.rows);
    for (int r = 0; r < kRows; ++r) {
      const float* x = a.x.x + size_t(clamped_row<kRows>(a, r)) * a.x.stride;
#pragma unroll 8
      for (int k = static_cast<int>(threadIdx.x); k < a.x.cols; k += static_cast<int>(blockDim.x))
        rows[r * stride + k] = x[k];
    }
    __syncthreads();
    for (int r = warp_id(); r < kRows; r += n_warps()) {
      const float inverse = inverse_norm(rows + r * stride, a.x.cols, a.x.eps);
      if (lane_id() == 0) shared_at<float>(shared.inverse)[r] = inverse;
    }
    __syncthreads();
  }

  // A warp's values of row r from k0 on, n of them; 0 behind.
  __device__ void get(int r, int k0, int n, LaneValues& y) const {
    if (!norms()) return prepare(a.x, clamped_row<kRows>(a, r), k0, n, 0.0f, y);
    const int stride = (a.x.cols + 3) / 4 * 4;
    const float inverse = shared_at<float>(shared.inverse)[r];
#pragma unroll
    for (int i = 0; i < kOfLane; ++i) {
      const int k = i * kWarp + lane_id();
      y[i] = k < n ? normalized(shared_at<float>(shared.rows)[r * stride + k0 + k], inverse,
                                shared_at<float>(shared.norm)[k0 + k])
                   : 0.0f;
    }
  }
};

// A warp leaves the sums of a segment.
template <int kRows>
__device__ void leave(const Place& place, int task, int segment, const float (&acc)[kRows]) {
  auto* sums = shared_at<float>(0) + (task % 2 * place.part.w.segments + segment) * kRows * kGroup;
#pragma unroll
  for (int r = 0; r < kRows; ++r) sums[r * kGroup + lane_id()] = acc[r];
}

// What a lane's output of row r of the tile is added to; asked for early, and used in finish().
__device__ inline float residual(const LinearArgs& a, const Place& place, int r) {
  const int row = place.first_row + r, column = place.group * kGroup + lane_id();
  if (!a.accumulate || row >= a.n_rows || column >= place.part.w.rows) return 0.0f;
  return a.y[size_t(row) * a.y_width + place.part.column + column];
}

// A lane's total is there: of a gate it is kept, of up it becomes the activation of both.
template <int kRows>
__device__ void put_gated(const LinearArgs& a, const LinearShared<kRows>& shared, const Place& place, int task, int r,
                          float total) {
  float& kept = shared_at<float>(shared.gates)[r * kGroup + lane_id()];  // written and read by one lane
  if (task % 2 == 0) {
    kept = total;
    return;
  }
  const int row = place.first_row + r, column = place.group * kGroup + lane_id();
  const float y = gated(kept, total);
  if (column < place.part.w.rows) a.y[size_t(row) * a.y_width + column] = y;
  if (a.packed_y.q != nullptr) pack_block(y, a.packed_y, size_t(row) * a.y_width / kQuantBlock + place.group);
}

// When all have left theirs: the total, bias, then residual, then out. One lane, one output. first: residual() of the
// warp's first row.
template <int kRows>
__device__ void finish(const LinearArgs& a, const LinearShared<kRows>& shared, const Place& place, int task,
                       float first) {
  __syncthreads();
  const int column = place.group * kGroup + lane_id(), segments = place.part.w.segments;
  const auto* sums = shared_at<float>(0) + task % 2 * segments * kRows * kGroup + lane_id();
  for (int r = warp_id(); r < kRows; r += n_warps()) {
    const int row = place.first_row + r;
    if (row >= a.n_rows) continue;
    float total = 0.0f;
#pragma unroll 8
    for (int s = 0; s < segments; ++s) total = __fadd_rn(total, sums[(s * kRows + r) * kGroup]);
    const bool is_output = column < place.part.w.rows;
    if (place.part.bias != nullptr && is_output) total = __fadd_rn(total, place.part.bias[column]);
    if (a.gates) {
      put_gated<kRows>(a, shared, place, task, r, total);
    } else if (is_output) {
      const float before = r == warp_id() ? first : residual(a, place, r);
      a.y[size_t(row) * a.y_width + place.part.column + column] = a.accumulate ? __fadd_rn(before, total) : total;
    }
  }
}

// How a launch is cut: a kernel's needs, and what the arguments become.
template <int kRows>
struct LinearCut {
  uint32_t input_bytes;         // of a segment of kRows rows
  uint32_t (*warp_bytes)(int);  // of a warp's ring of n slots

  // The most warps, with a.n_slots slots each, that fit into `limit` bytes, so few that all have as many segments as
  // the busiest one; 0: none fits.
  int warps(const LinearArgs& a, size_t limit) const {
    const int segments = a.parts[0].w.segments;
    for (int n = segments < kMaxLinearWarps ? segments : kMaxLinearWarps; n > 0; --n)
      if (bytes(a, n) <= limit) return divide_up(segments, divide_up(segments, n));
    return 0;
  }
  size_t bytes(const LinearArgs& a, int n_warps) const {
    return LinearShared<kRows>(a, n_warps, input_bytes, warp_bytes(a.n_slots)).bytes;
  }
  // Blocks of so many warps that a multiprocessor has room for.
  int resident(const LinearArgs& a, int n_warps) const {
    constexpr int kThreads = 2048, kRegisters = 65536, kRegistersOfThread = 80, kReserved = 1024;
    const auto by_memory = static_cast<int>(kSharedOfMultiprocessor / (bytes(a, n_warps) + kReserved));
    const int by_threads = kThreads / (n_warps * kWarp),
              by_registers = kRegisters / (n_warps * kWarp * kRegistersOfThread);
    const int least = by_memory < by_threads ? by_memory : by_threads;
    return least < by_registers ? (least < 1 ? 1 : least) : by_registers;
  }
  Shape shape(const KernelStream& stream, const LinearArgs& a, int n_warps) const {
    const int tiles = divide_up(a.n_rows, kRows), work = a.gates ? a.n_groups / 2 : a.n_groups;
    const int room = tiles > 1 ? work : stream.n_multiprocessors * resident(a, n_warps);
    return {dim3(static_cast<unsigned>(tiles), static_cast<unsigned>(work < room ? work : room)),
            dim3(static_cast<unsigned>(n_warps * kWarp)), bytes(a, n_warps)};
  }
};

// Starts the kernel for as many rows at once as there are and have room: start(rows) gives false where they have not.
template <typename Start>
void choose_rows(const LinearArgs& a, Start start) {
  if (a.n_rows > 4 && start(std::integral_constant<int, kMaxTileRows>())) return;
  if (a.n_rows > 2 && start(std::integral_constant<int, 4>())) return;
  if (a.n_rows > 1 && start(std::integral_constant<int, 2>())) return;
  if (!start(std::integral_constant<int, 1>())) fail_too_wide(a.parts[0].w.cols);
}

}  // namespace llorch::cuda
