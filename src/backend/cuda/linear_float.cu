// Linear with F32, F16 and BF16 weights: activations are float32 rows in shared memory, which all lanes of a warp read
// at the same place; weights go through it a few units at a time.
#include "backend/cuda/linear.h"

namespace llorch::cuda {
namespace {

constexpr int kPieceUnits = 8;  // units of a lane that are copied together
constexpr uint32_t kPieceBytes = kPieceUnits * kGroup * sizeof(uint4);

// Pieces that a warp has under way: four where each block has a multiprocessor for itself, else two.
constexpr int kManyPieces = 4, kFewPieces = 2;

template <int kRows>
__host__ __device__ constexpr uint32_t bytes_per_warp(int n_pieces) {
  return kRows * kSegment * static_cast<uint32_t>(sizeof(float)) + static_cast<uint32_t>(n_pieces) * kPieceBytes;
}

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

// A warp's segments, one after another, as pieces.
template <typename Codes>
struct WeightStream {
  static constexpr int kPiecesPerSegment = kSegment / (Codes::kPerUnit * kPieceUnits);
  const uint4* group;  // the lane's first unit
  int units_per_row, n_pieces;
  uint4* ring;  // the lane's

  __device__ uint4* slot(int piece) const { return ring + (piece & (n_pieces - 1)) * (kPieceUnits * kGroup); }

  // One group of copies; none behind the row's end.
  __device__ void ask_for(int piece) const {
    const int segment = warp_id() + piece / kPiecesPerSegment * n_warps();
    const int first = (segment * kPiecesPerSegment + piece % kPiecesPerSegment) * kPieceUnits;
#pragma unroll
    for (int i = 0; i < kPieceUnits; ++i)
      if (first + i < units_per_row) copy_16(slot(piece) + i * kGroup, group + size_t(first + i) * kGroup);
    commit_copies();
  }
};

template <typename Codes, int kRows>
__global__ void __launch_bounds__(kLinearThreads) linear_float_kernel(const LinearArgs a) {
  constexpr int kN = Codes::kPerUnit;
  using Weights = WeightStream<Codes>;
  const LinearShared<kRows> shared(a, n_warps(), bytes_per_warp<kRows>(a.n_slots));
  const uint32_t own = shared.warps + static_cast<uint32_t>(warp_id()) * bytes_per_warp<kRows>(a.n_slots);
  auto* xs = shared_at<float>(own);
  const Place place = find_place<kRows>(a);
  const MatrixView& w = place.part.w;
  const Weights weights{w.units + size_t(place.group) * w.units_per_row * kGroup + lane_id(), w.units_per_row,
                        a.n_slots, shared_at<uint4>(own + kRows * kSegment * sizeof(float)) + lane_id()};
  const TileInput<kRows> input{a, place, shared};
  input.ask_for_norm();
  for (int i = 0; i < a.n_slots; ++i) weights.ask_for(i);
  wait_for_inputs();
  const float first_residual = warp_id() < kRows ? residual(a, place, warp_id()) : 0.0f;
  if (a.n_slots == kManyPieces)
    wait_for_copies<kManyPieces>();
  else
    wait_for_copies<kFewPieces>();
  input.begin();
  int piece = 0;
  for (int segment = warp_id(); segment < w.segments; segment += n_warps()) {
    const int k0 = segment * kSegment, n = w.cols - k0 < kSegment ? w.cols - k0 : kSegment;
    __syncwarp();
#pragma unroll 1
    for (int r = 0; r < kRows; ++r) {
      LaneValues values;
      input.get(r, k0, n, values);
#pragma unroll
      for (int i = 0; i < kOfLane; ++i) xs[r * kSegment + i * kWarp + lane_id()] = values[i];
    }
    __syncwarp();
    float acc[kRows];
#pragma unroll
    for (int r = 0; r < kRows; ++r) acc[r] = 0.0f;
    for (int k = 0; k < kSegment; k += kPieceUnits * kN, ++piece) {
      wait_for_oldest_of(a.n_slots);
      const uint4* units = weights.slot(piece);
#pragma unroll
      for (int i = 0; i < kPieceUnits; ++i) {
        const int at = k + i * kN;
        if (at + kN <= n)
          add_unit<Codes, kRows>(units[i * kGroup], xs + at, acc);
        else if (at < n)
          add_part_of_unit<Codes, kRows>(units[i * kGroup], n - at, xs + at, acc);
      }
      weights.ask_for(piece + a.n_slots);
    }
    leave<kRows>(segment, acc);
  }
  finish<kRows>(a, place, first_residual);
}

// False: not even one warp has room.
template <typename Codes, int kRows>
bool start(const KernelStream& stream, LinearArgs& a) {
  const bool alone = divide_up(a.n_rows, kRows) * a.n_groups <= stream.n_multiprocessors;
  a.n_slots = alone ? kManyPieces : kFewPieces;
  const int warps =
      count_warps<kRows>(a, kMaxLinearWarps, bytes_per_warp<kRows>(a.n_slots), alone ? kAllShared : kHalfShared);
  if (warps == 0) return false;
  launch(stream, linear_shape<kRows>(a, warps, bytes_per_warp<kRows>(a.n_slots)), linear_float_kernel<Codes, kRows>, a);
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
