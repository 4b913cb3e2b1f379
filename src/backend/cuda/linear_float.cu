// Linear with F32, F16 and BF16 weights: activations are float32 rows in shared memory, which all lanes of a warp read
// at the same place; weights go through it a few units at a time.
#include "backend/cuda/linear.h"

namespace llorch::cuda {
namespace {

constexpr int kPieceUnits = 4;  // units of a lane that are copied together
constexpr int kPieces = 4;      // that a warp has under way: 8 KB
constexpr uint32_t kPieceBytes = kPieceUnits * kGroup * sizeof(uint4);

template <int kRows>
constexpr uint32_t kBytesPerWarp = kRows* kSegment * sizeof(float) + kPieces* kPieceBytes;

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
  int units_per_row;
  uint4* ring;  // the lane's

  __device__ uint4* slot(int piece) const { return ring + piece % kPieces * (kPieceUnits * kGroup); }

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
  const LinearShared<kRows> shared(a, n_warps(), kBytesPerWarp<kRows>);
  const uint32_t own = shared.warps + static_cast<uint32_t>(warp_id()) * kBytesPerWarp<kRows>;
  auto* xs = shared_at<float>(own);
  const Place place = find_place<kRows>(a);
  const MatrixView& w = place.part.w;
  const Weights weights{w.units + size_t(place.group) * w.units_per_row * kGroup + lane_id(), w.units_per_row,
                        shared_at<uint4>(own + kRows * kSegment * sizeof(float)) + lane_id()};
  const TileInput<kRows> input{a, place, shared};
  input.ask_for_norm();
#pragma unroll
  for (int i = 0; i < kPieces; ++i) weights.ask_for(i);
  wait_for_inputs();
  wait_for_copies<kPieces>();
  input.begin();
  int piece = 0;
  for (int segment = warp_id(); segment < w.segments; segment += n_warps()) {
    const int k0 = segment * kSegment, n = w.cols - k0 < kSegment ? w.cols - k0 : kSegment;
    __syncwarp();
#pragma unroll 1
    for (int r = 0; r < kRows; ++r) {
#pragma unroll
      for (int i = 0; i < kSegment / kWarp; ++i) {
        const int k = i * kWarp + lane_id();
        if (k < n) xs[r * kSegment + k] = input(r, k0 + k);
      }
    }
    __syncwarp();
    float acc[kRows];
#pragma unroll
    for (int r = 0; r < kRows; ++r) acc[r] = 0.0f;
    for (int k = 0; k < kSegment; k += kPieceUnits * kN, ++piece) {
      wait_for_copies<kPieces - 1>();
      const uint4* units = weights.slot(piece);
#pragma unroll
      for (int i = 0; i < kPieceUnits; ++i) {
        const int at = k + i * kN;
        if (at + kN <= n)
          add_unit<Codes, kRows>(units[i * kGroup], xs + at, acc);
        else if (at < n)
          add_part_of_unit<Codes, kRows>(units[i * kGroup], n - at, xs + at, acc);
      }
      weights.ask_for(piece + kPieces);
    }
    leave<kRows>(segment, acc);
  }
  finish<kRows>(a, place);
}

// False: not even one warp has room.
template <typename Codes, int kRows>
bool start(const KernelStream& stream, LinearArgs& a) {
  const int warps = count_warps<kRows>(a, kMaxLinearWarps, kBytesPerWarp<kRows>, kHalfShared);
  if (warps == 0) return false;
  launch(stream, linear_shape<kRows>(a, warps, kBytesPerWarp<kRows>), linear_float_kernel<Codes, kRows>, a);
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
