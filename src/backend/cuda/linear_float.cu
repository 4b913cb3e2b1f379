// Linear with F32, F16 and BF16 weights: activations are float32 rows in shared memory, which all lanes of a warp read
// at the same place; weights go through it a few units at a time.
#include "backend/cuda/linear.h"

namespace llorch::cuda {
namespace {

constexpr int kPieceUnits = 8;  // units of a lane that are copied together
constexpr uint32_t kPieceBytes = kPieceUnits * kGroup * sizeof(uint4);

// Pieces that a warp has under way: four where there is room for a block's whole share of a matrix, or for most of it,
// else two.
constexpr int kManyPieces = 4, kFewPieces = 2;

__device__ void wait_for_oldest_of(int n_pieces) {
  if (n_pieces == kManyPieces)
    wait_for_copies<kManyPieces - 1>();
  else
    wait_for_copies<kFewPieces - 1>();
}

// xs: [kRows][kSegment] in shared memory, at the unit's first k.
template <typename Codes, int kRows>
__device__ void add_unit(const uint4& unit, const float* xs, float (&acc)[kRows]) {
  constexpr int kN = Codes::kPerUnit;
  float w[kN];
  Codes::widen(unit, w);
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
#pragma unroll
    for (int j = 0; j < kN; j += 4) {
      const float4 x = *reinterpret_cast<const float4*>(xs + r * kSegment + j);
      acc[r] = __fmaf_rn(w[j], x.x, acc[r]);
      acc[r] = __fmaf_rn(w[j + 1], x.y, acc[r]);
      acc[r] = __fmaf_rn(w[j + 2], x.z, acc[r]);
      acc[r] = __fmaf_rn(w[j + 3], x.w, acc[r]);
    }
  }
}
// The first n elements of a unit, at a row's end.
template <typename Codes, int kRows>
__device__ void add_part_of_unit(const uint4& unit, int n, const float* xs, float (&acc)[kRows]) {
  float w[Codes::kPerUnit];
  Codes::widen(unit, w);
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
#pragma unroll
    for (int j = 0; j < Codes::kPerUnit; ++j)
      if (j < n) acc[r] = __fmaf_rn(w[j], xs[r * kSegment + j], acc[r]);
  }
}

// units: a piece, of which n elements are there. Without a branch where these are all, so that the units' loads go
// ahead of their sums.
template <typename Codes, int kRows>
__device__ void add_piece(const uint4* units, int n, const float* xs, float (&acc)[kRows]) {
  constexpr int kN = Codes::kPerUnit;
  if (n >= kPieceUnits * kN) {
#pragma unroll
    for (int i = 0; i < kPieceUnits; ++i) add_unit<Codes, kRows>(units[i * kGroup], xs + i * kN, acc);
    return;
  }
#pragma unroll 1
  for (int i = 0; n > 0; ++i, n -= kN) {
    if (n >= kN)
      add_unit<Codes, kRows>(units[i * kGroup], xs + i * kN, acc);
    else
      add_part_of_unit<Codes, kRows>(units[i * kGroup], n, xs + i * kN, acc);
  }
}

// What a warp asks for, in order: the pieces of its segments of the block's first task, of the next, ...
template <typename Codes, int kRows>
struct PieceStream {
  static constexpr int kPiecesPerSegment = kSegment / (Codes::kPerUnit * kPieceUnits);
  const LinearArgs& a;
  const Team team;
  uint4* ring;  // the lane's
  const int n_tasks;
  int task = 0, segment = team.index, piece = 0, n_asked = 0;
  const uint4* from = nullptr;  // the piece
  int left = 0;                 // units from there to the row's end

  __device__ uint4* slot(int visit) const { return ring + (visit & (a.n_slots - 1)) * (kPieceUnits * kGroup); }

  // One group of copies; none behind a row's end or the last piece.
  __device__ void ask() {
    if (task >= n_tasks) return commit_copies();
    if (piece == 0) begin_segment();
    uint4* to = slot(n_asked++);
#pragma unroll
    for (int i = 0; i < kPieceUnits; ++i)
      if (i < left) copy_16(to + i * kGroup, from + i * kGroup);
    commit_copies();
    from += kPieceUnits * kGroup;
    left -= kPieceUnits;
    if (++piece < kPiecesPerSegment) return;
    piece = 0;
    segment += team.n;
    if (segment - team.of_warp < a.parts[0].w.segments) return;
    segment = team.index;
    ++task;
  }

 private:
  __device__ void begin_segment() {
    const Place place = find_place<kRows>(a, task);
    const MatrixView& w = place.part.w;
    const int group = place.column / kGroup, first = segment * kPiecesPerSegment * kPieceUnits;
    from = w.units + (size_t(group) * w.units_per_row + first) * kGroup + place.column % kGroup + team.lane;
    left = w.units_per_row - first;
  }
};

// What the warp's teams read: the rows of their segments, from `segment` on. Several are asked for before the first is
// stored: the compiler keeps the order of loads and stores.
template <int kRows>
__device__ void stage(const TileInput<kRows>& input, int segment, float* xs) {
  constexpr int kAtOnce = kRows <= 2 ? 2 : 4;
  const int n = kRows * teams_of_warp(input.a);
  const auto left = [&](int i) { return i < n ? input.a.x.cols - (segment + i / kRows) * kSegment : 0; };
  __syncwarp();
#pragma unroll 1
  for (int first = 0; first < n; first += kAtOnce) {
    LaneValues values[kAtOnce];
#pragma unroll
    for (int i = first; i < first + kAtOnce; ++i)
      input.get(i % kRows, (segment + i / kRows) * kSegment, left(i), values[i - first]);
#pragma unroll
    for (int i = first; i < first + kAtOnce; ++i) {
      if (left(i) <= 0) continue;
#pragma unroll
      for (int j = 0; j < kOfLane; ++j) xs[i * kSegment + j * kWarp + lane_id()] = values[i - first][j];
    }
  }
  __syncwarp();
}

template <typename Codes, int kRows>
__global__ void __launch_bounds__(kLinearThreads<Codes, kRows>)
    linear_float_kernel(const __grid_constant__ LinearArgs a) {
  constexpr int kN = Codes::kPerUnit;
  constexpr uint32_t kInputBytes = kRows * kSegment * sizeof(float);
  const uint32_t ring_bytes = static_cast<uint32_t>(a.n_slots) * kPieceBytes;
  const LinearShared<kRows> shared(a, n_warps(), kInputBytes, ring_bytes);
  const TileInput<kRows> input{a, shared};
  const Team team(a);
  PieceStream<Codes, kRows> stream{
      a, team, shared_at<uint4>(shared.warps + static_cast<uint32_t>(warp_id()) * ring_bytes) + lane_id(),
      count_tasks(a)};
  input.ask_for_norm();
  for (int i = 0; i < a.n_slots; ++i) stream.ask();
  wait_for_rows(a);
  if (a.n_slots == kManyPieces)
    wait_for_copies<kManyPieces>();
  else
    wait_for_copies<kFewPieces>();
  input.begin();
  int visit = 0;
  for (int task = 0; task < stream.n_tasks; ++task) {
    const Place place = find_place<kRows>(a, task);
    const float first_residual = team.index < kRows ? residual(a, place, team.index) : 0.0f;
    for (int segment = team.index; segment - team.of_warp < place.part.w.segments; segment += team.n) {
      const int left = place.part.w.cols - segment * kSegment;
      const int at = a.keeps_input ? segment : team.index;
      const auto* xs = shared_at<float>(shared.inputs + static_cast<uint32_t>(at) * kInputBytes);
      if (task == 0 || !a.keeps_input)
        stage<kRows>(input, segment - team.of_warp,
                     shared_at<float>(shared.inputs + static_cast<uint32_t>(at - team.of_warp) * kInputBytes));
      float acc[kRows];
#pragma unroll
      for (int r = 0; r < kRows; ++r) acc[r] = 0.0f;
      for (int k = 0; k < kSegment; k += kPieceUnits * kN, ++visit) {
        wait_for_oldest_of(a.n_slots);
        add_piece<Codes, kRows>(stream.slot(visit), left - k, xs + k, acc);
        stream.ask();
      }
      leave<kRows>(a, place, task, segment, acc);
    }
    finish<kRows>(a, shared, place, task, first_residual);
  }
  if (!a.is_first) wait_for_earlier();
}

// Half of a multiprocessor's memory, so that the next kernel's blocks have room beside these, and ask for their weights
// meanwhile. False: not even one warp has room.
template <typename Codes, int kRows>
bool start(const KernelStream& stream, LinearArgs& a) {
  const LinearCut<Codes, kRows> cut = {kRows * kSegment * sizeof(float),
                                       [](int n_slots) { return static_cast<uint32_t>(n_slots) * kPieceBytes; }};
  cut.choose_task(stream, a, stream.n_multiprocessors);
  a.n_slots = kManyPieces;
  int warps = cut.warps(a, half_shared(stream));
  if (!a.halves || warps < cut.all_warps(a)) {
    a.n_slots = kFewPieces;
    warps = cut.warps(a, half_shared(stream));
  }
  if (warps == 0) {
    a.keeps_input = false;
    warps = cut.warps(a, all_shared(stream));
  }
  if (warps == 0) return false;
  launch(stream, cut.shape(stream, a, warps), linear_float_kernel<Codes, kRows>, a);
  return true;
}

}  // namespace

void linear_of_floats(const KernelStream& stream, DType dtype, LinearArgs args) {
  with_codes(dtype, [&](auto codes) {
    using Codes = decltype(codes);
    if constexpr (!kIsQuantized<Codes>)
      choose_rows(args, [&](auto rows) { return start<Codes, rows()>(stream, args); });
  });
}

}  // namespace llorch::cuda
