// Linear with F32, F16 and BF16 weights: activations are float32 rows in shared memory, which all lanes of a warp read
// at the same place; a thread has eight loads of 16 bytes in flight.
#include "backend/cuda/linear.h"

namespace llorch::cuda {
namespace {

constexpr int kAhead = 8;  // units of a lane that are asked for before they are used

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

template <typename Codes, int kRows>
__global__ void __launch_bounds__(kLinearThreads) linear_float_kernel(const LinearArgs a) {
  auto& shared = *reinterpret_cast<LinearShared<kRows>*>(shared_memory());
  float* xs = reinterpret_cast<float*>(shared_memory() + sizeof(LinearShared<kRows>)) + warp_id() * kRows * kSegment;
  const Place place = find_place<kRows>(a);
  const MatrixView& w = place.part.w;
  constexpr int kN = Codes::kPerUnit;
  const int begin = static_cast<int>(blockIdx.z) * n_warps(), stride = n_warps() * a.n_splits;
  for (int first = begin; first < w.segments; first += stride) {
    const int segment = first + warp_id(), k0 = segment * kSegment;
    const int n = segment >= w.segments ? 0 : w.cols - k0 < kSegment ? w.cols - k0 : kSegment;
    const int n_units = n / kN;
    const uint4* units =
        w.units + (size_t(place.group) * w.units_per_row + size_t(segment) * (kSegment / kN)) * kGroup + lane_id();
    uint4 ahead[kAhead];
#pragma unroll
    for (int i = 0; i < kAhead; ++i)
      if (i < n_units) ahead[i] = load_unit<kRows>(units + i * kGroup);
    // The weights are under way; now what they are multiplied with.
    if (first == begin) {
      wait_for_inputs();
      find_inverses<kRows>(a, place, shared);
    }
    for (int r = 0; r < kRows; ++r) {
      const int row = clamped_row(a, place.first_row + r);
      for (int i = lane_id(); i < n; i += kWarp) xs[r * kSegment + i] = prepared(a.x, row, k0 + i, shared.inverse[r]);
    }
    __syncwarp();
    float acc[kRows];
#pragma unroll
    for (int r = 0; r < kRows; ++r) acc[r] = 0.0f;
    int u = 0;
    for (; u + kAhead <= n_units; u += kAhead) {
      uint4 next[kAhead];
#pragma unroll
      for (int i = 0; i < kAhead; ++i)
        if (u + kAhead + i < n_units) next[i] = load_unit<kRows>(units + (u + kAhead + i) * kGroup);
#pragma unroll
      for (int i = 0; i < kAhead; ++i) add_unit<Codes, kRows>(ahead[i], xs + (u + i) * kN, acc);
#pragma unroll
      for (int i = 0; i < kAhead; ++i) ahead[i] = next[i];
    }
#pragma unroll
    for (int i = 0; i < kAhead; ++i)
      if (u + i < n_units) add_unit<Codes, kRows>(ahead[i], xs + (u + i) * kN, acc);
    if (n % kN != 0) {  // the last unit of a row that is not full
      float last[kN];
      Codes::widen(load_unit<kRows>(units + n_units * kGroup), last);
      for (int r = 0; r < kRows; ++r) {
#pragma unroll
        for (int j = 0; j < kN; ++j)
          if (j < n % kN) acc[r] = __fmaf_rn(last[j], xs[r * kSegment + n_units * kN + j], acc[r]);
      }
    }
    if (a.n_splits > 1) return add_splits<kRows>(a, place, acc, segment, shared);
    add_round<kRows>(acc, first, w.segments, shared);
  }
  for (int r = warp_id(); r < kRows; r += n_warps()) finish(a, place, place.first_row + r, shared.totals[r][lane_id()]);
}

template <typename Codes, int kRows>
void start(const KernelStream& stream, LinearArgs& a) {
  constexpr size_t kBytesPerWarp = size_t{kRows} * kSegment * sizeof(float);
  constexpr int kMaxWarps = kRows < kMaxTileRows ? 8 : 4;  // 48 KB of shared memory
  const Shape shape = cut_linear<kRows>(a, stream.n_multiprocessors, kMaxWarps, kBytesPerWarp);
  launch(stream, shape, linear_float_kernel<Codes, kRows>, a);
}

template <typename Codes>
void choose_rows(const KernelStream& stream, LinearArgs& a) {
  if (a.n_rows == 1) return start<Codes, 1>(stream, a);
  if (a.n_rows == 2) return start<Codes, 2>(stream, a);
  if (a.n_rows <= 4) return start<Codes, 4>(stream, a);
  start<Codes, kMaxTileRows>(stream, a);
}

}  // namespace

void linear_of_floats(const KernelStream& stream, DType dtype, LinearArgs args) {
  with_codes(dtype, [&](auto codes) {
    if constexpr (!kIsQuantized<decltype(codes)>) choose_rows<decltype(codes)>(stream, args);
  });
}

}  // namespace llorch::cuda
