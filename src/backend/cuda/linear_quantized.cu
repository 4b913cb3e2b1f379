// Linear with block-quantized weights: activations are int16 blocks of 32 in shared memory; a thread asks for all codes
// of its segment before it uses the first.
#include "backend/cuda/linear.h"

namespace llorch::cuda {
namespace {

// One row of a warp's segment as int16 blocks.
struct PackedSegment {
  int16_t q[kSegment];
  float d[kBlocksPerSegment];
  int32_t sums[kBlocksPerSegment];
};

// Fills xs [kRows] for a segment of n columns from k0 on: copied where it was made before, else made here.
template <int kRows>
__device__ void stage(const LinearArgs& a, const Place& place, int k0, int n, const float* inverse, PackedSegment* xs) {
  const int n_blocks = n / kQuantBlock;
  for (int r = 0; r < kRows; ++r) {
    const int row = clamped_row(a, place.first_row + r);
    if (a.packed.q != nullptr) {
      const size_t at = size_t(row) * a.x.cols + k0;
      if (lane_id() * 8 < n)
        reinterpret_cast<uint4*>(xs[r].q)[lane_id()] = reinterpret_cast<const uint4*>(a.packed.q + at)[lane_id()];
      if (lane_id() < n_blocks) {
        xs[r].d[lane_id()] = a.packed.d[at / kQuantBlock + lane_id()];
        xs[r].sums[lane_id()] = a.packed.sums[at / kQuantBlock + lane_id()];
      }
      continue;
    }
    for (int b = 0; b < n_blocks; ++b) {
      const int i = b * kQuantBlock + lane_id();
      const Quantized v = quantize(prepared(a.x, row, k0 + i, inverse[r]));
      const int sum = integer_sum(v.q);
      xs[r].q[i] = static_cast<int16_t>(v.q);
      if (lane_id() == 0) {
        xs[r].d[b] = v.d;
        xs[r].sums[b] = sum;
      }
    }
  }
  __syncwarp();
}

// The exact sum of products of 4 * kWords codes; x: as many int16 in shared memory.
template <int kWords>
__device__ int dot(const int* words, const int16_t* x) {
  const int4* pairs = reinterpret_cast<const int4*>(x);
  int sum = 0;
#pragma unroll
  for (int i = 0; i < kWords; i += 2) {
    const int4 p = pairs[i / 2];
    sum = __dp2a_lo(p.x, words[i], sum);
    sum = __dp2a_hi(p.y, words[i], sum);
    sum = __dp2a_lo(p.z, words[i + 1], sum);
    sum = __dp2a_hi(p.w, words[i + 1], sum);
  }
  return sum;
}

// Adds block b of a segment to each row's sum.
template <typename Codes, int kRows>
__device__ void add_block(const SegmentUnits<Codes>& units, const typename Codes::Scales& scales, int b,
                          const PackedSegment* xs, float (&acc)[kRows]) {
  constexpr int kGroups = kQuantBlock / Codes::Block::kScaleGroup, kWords = kWordsPerBlock / kGroups;
  static_assert(kGroups == 1 || Codes::kOffset == 0, "sums of activations are those of a block");
  int words[kWordsPerBlock];
  Codes::words(units.units[b], units.highs, b, words);
  float scale[kGroups];
#pragma unroll
  for (int g = 0; g < kGroups; ++g) scale[g] = scales.scale(b * kGroups + g);
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    const PackedSegment& x = xs[r];
#pragma unroll
    for (int g = 0; g < kGroups; ++g) {
      int sum = dot<kWords>(words + g * kWords, x.q + b * kQuantBlock + g * Codes::Block::kScaleGroup);
      if constexpr (Codes::kShift != 0) sum >>= Codes::kShift;
      if constexpr (Codes::kOffset != 0) sum -= Codes::kOffset * x.sums[b];
      acc[r] = __fmaf_rn(__int2float_rn(sum), __fmul_rn(scale[g], x.d[b]), acc[r]);
    }
    if constexpr (Codes::Block::kHasMinimum)
      acc[r] = __fmaf_rn(__fmul_rn(scales.minimum(b), x.d[b]), __int2float_rn(x.sums[b]), acc[r]);
  }
}

template <typename Codes, int kRows>
__global__ void __launch_bounds__(kLinearThreads, 2) linear_quantized_kernel(const LinearArgs a) {
  auto& shared = *reinterpret_cast<LinearShared<kRows>*>(shared_memory());
  auto* xs = reinterpret_cast<PackedSegment*>(shared_memory() + sizeof(LinearShared<kRows>)) + warp_id() * kRows;
  const Place place = find_place<kRows>(a);
  const MatrixView& w = place.part.w;
  const int begin = static_cast<int>(blockIdx.z) * n_warps(), stride = n_warps() * a.n_splits;
  for (int first = begin; first < w.segments; first += stride) {
    const int segment = first + warp_id(), k0 = segment * kSegment;
    const int n = segment >= w.segments ? 0 : w.cols - k0 < kSegment ? w.cols - k0 : kSegment;
    const int n_blocks = n / kQuantBlock;
    SegmentUnits<Codes> units;
    if (n_blocks > 0)
      units.load(segment_place<Codes>(w, place.group, segment, lane_id()), 0, n_blocks,
                 [](const auto* unit) { return load_unit<kRows>(unit); });
    if (first == begin) {
      wait_for_inputs();
      if (a.packed.q == nullptr) find_inverses<kRows>(a, place, shared);
    }
    stage<kRows>(a, place, k0, n, shared.inverse, xs);
    float acc[kRows];
#pragma unroll
    for (int r = 0; r < kRows; ++r) acc[r] = 0.0f;
    const typename Codes::Scales scales = units.make_scales();
#pragma unroll
    for (int b = 0; b < kBlocksPerSegment; ++b)
      if (b < n_blocks) add_block<Codes, kRows>(units, scales, b, xs, acc);
    if (a.n_splits > 1) return add_splits<kRows>(a, place, acc, segment, shared);
    add_round<kRows>(acc, first, w.segments, shared);
  }
  for (int r = warp_id(); r < kRows; r += n_warps()) finish(a, place, place.first_row + r, shared.totals[r][lane_id()]);
}

template <typename Codes, int kRows>
void start(const KernelStream& stream, LinearArgs& a) {
  const Shape shape = cut_linear<kRows>(a, stream.n_multiprocessors, 8, sizeof(PackedSegment) * kRows);
  launch(stream, shape, linear_quantized_kernel<Codes, kRows>, a);
}

template <typename Codes>
void choose_rows(const KernelStream& stream, LinearArgs& a) {
  if (a.n_rows == 1) return start<Codes, 1>(stream, a);
  if (a.n_rows == 2) return start<Codes, 2>(stream, a);
  if (a.n_rows <= 4) return start<Codes, 4>(stream, a);
  start<Codes, kMaxTileRows>(stream, a);
}

}  // namespace

void linear_of_blocks(const KernelStream& stream, DType dtype, LinearArgs args) {
  with_codes(dtype, [&](auto codes) {
    if constexpr (kIsQuantized<decltype(codes)>) choose_rows<decltype(codes)>(stream, args);
  });
}

void linear(const KernelStream& stream, DType dtype, LinearArgs args) {
  return is_quantized(dtype) ? linear_of_blocks(stream, dtype, args) : linear_of_floats(stream, dtype, args);
}

}  // namespace llorch::cuda
