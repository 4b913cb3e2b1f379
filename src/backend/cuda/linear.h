// What the two kernels of Linear share. For .cu files.
//
// A block makes groups of 32 outputs of up to kRows rows, one group after another; a lane is an output, a warp takes a
// segment of 256 of K at a time and leaves its sum in shared memory; when a group's sums are there, they are added left
// to right. Where there are few groups a block makes half of one at a time, and a warp takes two segments at once: so
// that twice as many multiprocessors have work, and room for the kernel that comes next.
//
// Weights go through a ring in shared memory that is the warp's own: a lane copies what it will read itself. The copies
// begin before the kernel waits for its inputs, and those of the next task before the last one is done, so that the
// device's memory is always at work. There are no more blocks than have room at once, as long as one tile has all rows:
// none has to make its input while its weights wait.
#pragma once

#include <algorithm>
#include <type_traits>

#include "backend/cuda/async_copy.h"
#include "backend/cuda/codes.h"
#include "backend/cuda/launch.h"
#include "backend/cuda/prepare.h"

namespace llorch::cuda {

inline constexpr int kMaxLinearWarps = 24;
// Registers of a thread: as many as a block of 24 warps can have; for one row of float weights so few that a block of
// the next kernel has room beside two of this one (of 65536, gate_up of TinyLlama's shape takes 18432 a block, ffn_out
// 25344). And the number of threads from which the compiler concludes that.
template <typename Codes, int kRows>
inline constexpr int kRegistersOfThread = kRows == 1 && !kIsQuantized<Codes> ? 72 : 80;
template <typename Codes, int kRows>
inline constexpr int kLinearThreads = kRegistersOfThread<Codes, kRows> == 72 ? 896 : kMaxLinearWarps* kWarp;
// Shared memory of one block: two have room beside each other on a multiprocessor, or, at most, one.
inline size_t half_shared(const KernelStream& stream) { return stream.shared.of_multiprocessor / 2 - (2 << 10); }
inline size_t all_shared(const KernelStream& stream) { return std::min(size_t{208} << 10, stream.shared.of_block); }

// A task is what a block makes at once: a group's outputs, or half of them. A team takes a segment, each lane an
// output: it is a warp, or half of one.
__host__ __device__ inline int teams_of_warp(const LinearArgs& a) { return a.halves ? 2 : 1; }
__host__ __device__ inline int outputs_of_task(const LinearArgs& a) { return a.halves ? kGroup / 2 : kGroup; }
struct Team {
  int of_warp;  // the thread's
  int index;    // of the block's teams
  int n;        // teams of the block
  int lane;     // inside the team

  __device__ explicit Team(const LinearArgs& a)
      : of_warp(a.halves ? lane_id() / (kWarp / 2) : 0),
        index(warp_id() * teams_of_warp(a) + of_warp),
        n(n_warps() * teams_of_warp(a)),
        lane(lane_id() & (outputs_of_task(a) - 1)) {}
};

// Where things lie in a block's shared memory, as bytes from its beginning. Sums come first:
// [segments][kRows][outputs], and the same again, for every second task.
template <int kRows>
struct LinearShared {
  uint32_t gates, inverse, rows, norm, inputs, warps, bytes;

  // input_bytes: of a segment of kRows rows.
  __host__ __device__ LinearShared(const LinearArgs& a, int n_warps, uint32_t input_bytes, uint32_t bytes_per_warp) {
    const bool norms = a.x.prepare == Prepare::kRmsNorm && a.packed.q == nullptr;
    const auto row_bytes = norms ? static_cast<uint32_t>((a.x.cols + 3) / 4 * 16) : 0;
    const auto segments = static_cast<uint32_t>(a.parts[0].w.segments);
    const auto output_bytes = static_cast<uint32_t>(kRows * outputs_of_task(a)) * static_cast<uint32_t>(sizeof(float));
    const auto teams = static_cast<uint32_t>(n_warps * teams_of_warp(a));
    gates = (a.one_task ? 1 : 2) * segments * output_bytes;
    inverse = gates + (a.gates ? output_bytes : 0);
    rows = inverse + kMaxTileRows * sizeof(float);
    norm = rows + kRows * row_bytes;
    inputs = norm + row_bytes;
    warps = inputs + (a.keeps_input ? segments : teams) * input_bytes;
    bytes = warps + static_cast<uint32_t>(n_warps) * bytes_per_warp;
  }
};

template <typename T>
__device__ T* shared_at(uint32_t byte) {
  return reinterpret_cast<T*>(shared_memory() + byte);
}

// The outputs of a task.
struct Place {
  LinearPart part;
  int column;     // the first one's, inside the part
  int first_row;  // of the tile
};

// Of all blocks; of gate and up, pairs of them.
__host__ __device__ inline int all_tasks(const LinearArgs& a) {
  return (a.gates ? a.n_groups / 2 : a.n_groups) * teams_of_warp(a);
}
// The tasks of a block: every gridDim.y-th, or both of every gridDim.y-th pair.
__device__ inline int count_tasks(const LinearArgs& a) {
  const int n = all_tasks(a), blocks = static_cast<int>(gridDim.y);
  return (n - static_cast<int>(blockIdx.y) + blocks - 1) / blocks * (a.gates ? 2 : 1);
}

template <int kRows>
__device__ Place find_place(const LinearArgs& a, int task) {
  const int index = static_cast<int>(blockIdx.y) + (a.gates ? task / 2 : task) * static_cast<int>(gridDim.y);
  const int group = (a.halves ? index / 2 : index) + (a.gates ? task % 2 * (a.n_groups / 2) : 0);
  int i = 0;
  while (i + 1 < a.n_parts && group >= a.parts[i + 1].first_group) ++i;
  return {a.parts[i], (group - a.parts[i].first_group) * kGroup + (a.halves ? index % 2 * (kGroup / 2) : 0),
          static_cast<int>(blockIdx.x) * kRows};
}

// The rows are there.
__device__ inline void wait_for_rows(const LinearArgs& a) {
  if (a.next == NextBegins::kAtOnce) let_next_begin();
  if (a.is_first)
    wait_for_earlier();
  else
    __threadfence();  // what the first-level cache has of them may be older
  if (a.next == NextBegins::kWithInput) let_next_begin();
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
  static constexpr bool kMakes = kRows <= kFusedRows;

  __device__ bool norms() const { return kMakes && a.x.prepare == Prepare::kRmsNorm && a.packed.q == nullptr; }

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
    constexpr int kAtOnce = 16;  // of a thread's elements
    const int stride = (a.x.cols + 3) / 4 * 4;
    auto* rows = shared_at<float>(shared.rows);
    for (int r = 0; r < kRows; ++r) {
      const float* x = a.x.x + size_t(clamped_row<kRows>(a, r)) * a.x.stride;
      const int step = static_cast<int>(blockDim.x);
      for (int first = static_cast<int>(threadIdx.x); first < a.x.cols; first += kAtOnce * step) {
        float values[kAtOnce];
#pragma unroll
        for (int i = 0; i < kAtOnce; ++i) values[i] = first + i * step < a.x.cols ? x[first + i * step] : 0.0f;
#pragma unroll
        for (int i = 0; i < kAtOnce; ++i)
          if (first + i * step < a.x.cols) rows[r * stride + first + i * step] = values[i];
      }
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
    if (!norms()) {
      const float* x = a.x.x + size_t(clamped_row<kRows>(a, r)) * a.x.stride + k0;
#pragma unroll
      for (int i = 0; i < kOfLane; ++i) y[i] = i * kWarp + lane_id() < n ? x[i * kWarp + lane_id()] : 0.0f;
      return;
    }
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

// A team leaves the sums of a segment.
template <int kRows>
__device__ void leave(const LinearArgs& a, const Place& place, int task, int segment, const float (&acc)[kRows]) {
  const int n = outputs_of_task(a);
  if (segment >= place.part.w.segments) return;
  auto* sums = shared_at<float>(0) + (task % 2 * place.part.w.segments + segment) * kRows * n + Team(a).lane;
#pragma unroll
  for (int r = 0; r < kRows; ++r) sums[r * n] = acc[r];
}

// What a lane's output of row r of the tile is added to; asked for early, and used in finish().
__device__ inline float residual(const LinearArgs& a, const Place& place, int r) {
  const int row = place.first_row + r, column = place.column + Team(a).lane;
  if (!a.accumulate || row >= a.n_rows || column >= place.part.w.rows) return 0.0f;
  return a.y[size_t(row) * a.y_width + place.part.column + column];
}

// A lane's total is there: of a gate it is kept, of up it becomes the activation of both.
template <int kRows>
__device__ void put_gated(const LinearArgs& a, const LinearShared<kRows>& shared, const Place& place, int task, int r,
                          float total) {
  const int lane = Team(a).lane;
  float& kept = shared_at<float>(shared.gates)[r * outputs_of_task(a) + lane];  // written and read by one lane
  if (task % 2 == 0) {
    kept = total;
    return;
  }
  const int row = place.first_row + r, column = place.column + lane;
  const float y = gated(kept, total);
  if (column < place.part.w.rows) a.y[size_t(row) * a.y_width + column] = y;
  if (a.packed_y.q != nullptr) pack_block(y, a.packed_y, (size_t(row) * a.y_width + place.column) / kQuantBlock);
}

// When all have left theirs: the total, bias, then residual, then out. One lane, one output. first: residual() of the
// team's first row.
template <int kRows>
__device__ void finish(const LinearArgs& a, const LinearShared<kRows>& shared, const Place& place, int task,
                       float first) {
  __syncthreads();
  const Team team(a);
  const int n = outputs_of_task(a), column = place.column + team.lane, segments = place.part.w.segments;
  const auto* sums = shared_at<float>(0) + task % 2 * segments * kRows * n + team.lane;
  for (int r = team.index; r < kRows; r += team.n) {
    const int row = place.first_row + r;
    if (row >= a.n_rows) continue;
    float total = 0.0f;
#pragma unroll 8
    for (int s = 0; s < segments; ++s) total = __fadd_rn(total, sums[(s * kRows + r) * n]);
    const bool is_output = column < place.part.w.rows;
    if (place.part.bias != nullptr && is_output) total = __fadd_rn(total, place.part.bias[column]);
    if (a.gates) {
      put_gated<kRows>(a, shared, place, task, r, total);
    } else if (is_output) {
      const float before = r == team.index ? first : residual(a, place, r);
      a.y[size_t(row) * a.y_width + place.part.column + column] = a.accumulate ? __fadd_rn(before, total) : total;
    }
  }
}

// How a launch is cut: a kernel's needs, and what the arguments become.
template <typename Codes, int kRows>
struct LinearCut {
  uint32_t input_bytes;         // of a segment of kRows rows
  uint32_t (*warp_bytes)(int);  // of a warp's ring of n slots

  // A block makes half a group at a time if there are no more than `few`, or as few pairs of them.
  void choose_task(const KernelStream& stream, LinearArgs& a, int few) const {
    const bool one_tile = a.n_rows <= kRows;
    a.halves = false;
    a.halves = one_tile && a.packed_y.q == nullptr && all_tasks(a) <= few;
    a.one_task = !a.gates && (!one_tile || all_tasks(a) <= stream.n_multiprocessors);
    a.keeps_input = !a.one_task;
  }
  // Warps that take all segments at once.
  static int all_warps(const LinearArgs& a) { return divide_up(a.parts[0].w.segments, teams_of_warp(a)); }
  // The most warps, with a.n_slots slots each, that fit into `limit` bytes, so few that all have as many segments as
  // the busiest one; 0: none fits.
  int warps(const LinearArgs& a, size_t limit) const {
    const int all = all_warps(a);
    for (int n = all < kMaxLinearWarps ? all : kMaxLinearWarps; n > 0; --n)
      if (bytes(a, n) <= limit) return divide_up(all, divide_up(all, n));
    return 0;
  }
  size_t bytes(const LinearArgs& a, int n_warps) const {
    return LinearShared<kRows>(a, n_warps, input_bytes, warp_bytes(a.n_slots)).bytes;
  }
  // Blocks of so many warps that a multiprocessor has room for.
  int resident(const KernelStream& stream, const LinearArgs& a, int n_warps) const {
    constexpr int kThreads = 2048, kRegisters = 65536, kReserved = 1024;
    const auto by_memory =
        static_cast<int>((stream.shared.of_multiprocessor - kReserved) / (bytes(a, n_warps) + kReserved));
    const int by_threads = kThreads / (n_warps * kWarp),
              by_registers = kRegisters / (n_warps * kWarp * kRegistersOfThread<Codes, kRows>);
    const int least = by_memory < by_threads ? by_memory : by_threads;
    return least < by_registers ? (least < 1 ? 1 : least) : by_registers;
  }
  Shape shape(const KernelStream& stream, const LinearArgs& a, int n_warps) const {
    const int tiles = divide_up(a.n_rows, kRows), work = all_tasks(a);
    const int room = tiles > 1 ? work : stream.n_multiprocessors * resident(stream, a, n_warps);
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
