// From the rows of a file to the device's layout (codes.h), and back for single rows.
#include "backend/cuda/codes.h"
#include "backend/cuda/launch.h"
#include "sampling/row.h"

namespace llorch::cuda {
namespace {

constexpr int kThreads = 256;

// One thread makes one unit: kPerUnit neighbouring elements of a row.
template <typename Codes>
__global__ void relayout_floats(const typename Codes::Element* raw, MatrixView w, int first_group, int64_t n_units) {
  const int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i >= n_units) return;
  const int lane = static_cast<int>(i % kGroup);
  const int unit = static_cast<int>(i / kGroup % w.units_per_row);
  const int64_t local_row = i / kGroup / w.units_per_row * kGroup + lane;
  constexpr int kN = Codes::kPerUnit;
  union {
    typename Codes::Element elements[kN];
    uint4 all;
  } out;
  out.all = make_uint4(0, 0, 0, 0);
  if (int64_t{first_group} * kGroup + local_row < w.rows)
    for (int j = 0; j < kN && unit * kN + j < w.cols; ++j) out.elements[j] = raw[local_row * w.cols + unit * kN + j];
  w.units[int64_t{first_group} * w.units_per_row * kGroup + i] = out.all;
}

// One thread makes one block of 32 of what exists.
template <typename Codes>
__global__ void relayout_blocks(const typename Codes::Block* raw, MatrixView w, int first_group, int64_t n) {
  const int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i >= n) return;
  using Block = typename Codes::Block;
  const int n_blocks = w.cols / kQuantBlock;
  const int lane = static_cast<int>(i % kGroup), block = static_cast<int>(i / kGroup % n_blocks);
  const int64_t local_group = i / kGroup / n_blocks, local_row = local_group * kGroup + lane;
  if (int64_t{first_group} * kGroup + local_row >= w.rows) return;
  const Block& file = raw[local_row * (w.cols / Block::kElements) + block * kQuantBlock / Block::kElements];
  const SegmentPlace to = segment_place<Codes>(w, first_group + local_group, block / kBlocksPerSegment, lane);
  const int b = block % kBlocksPerSegment;
  Codes::store(file, block * kQuantBlock % Block::kElements, to, b);
  Codes::Scales::store(file, to, b);
}

// The dequantized element of a matrix on the device: exactly what tensor/blocks.h makes of the file's.
template <typename Codes>
__device__ float element(const MatrixView& w, int row, int col) {
  const int64_t group = row / kGroup;
  const int lane = row % kGroup;
  if constexpr (kIsQuantized<Codes>) {
    const int in_segment = col % kSegment, b = in_segment / kQuantBlock, k = col % kQuantBlock;
    SegmentUnits<Codes, 1> units;
    units.load(segment_place<Codes>(w, group, col / kSegment, lane), b, 1, [](const auto* p) { return *p; });
    int words[kWordsPerBlock];
    Codes::words(units.units[0], units.highs, b, words);
    const typename Codes::Scales scales = units.make_scales();
    const float product =
        __fmul_rn(scales.scale(in_segment / Codes::Block::kScaleGroup), __int2float_rn(code_at<Codes>(words, k)));
    if constexpr (Codes::Block::kHasMinimum)
      return __fadd_rn(product, scales.minimum(b));
    else
      return product;
  } else {
    float values[Codes::kPerUnit];
    Codes::widen(w.units[(group * w.units_per_row + col / Codes::kPerUnit) * kGroup + lane], values);
    return values[col % Codes::kPerUnit];
  }
}

template <typename Codes>
__global__ void embed_rows(MatrixView w, TokenView tokens, float scale, float* y) {
  wait_for_inputs();
  int row = tokens.tokens[blockIdx.x];
  if (is_in_flight(row)) {
    const int sampled = tokens.sampled[row_in_flight(row)];
    row = sampled >= 0 ? sampled : 0;
  }
  for (int k = static_cast<int>(threadIdx.x); k < w.cols; k += static_cast<int>(blockDim.x))
    y[size_t{blockIdx.x} * w.cols + k] = __fmul_rn(element<Codes>(w, row, k), scale);
}

}  // namespace

RowLayout row_layout(DType dtype, int32_t cols) {
  RowLayout layout;
  layout.segments = divide_up(cols, kSegment);
  with_codes(dtype, [&](auto codes) {
    using Codes = decltype(codes);
    if constexpr (kIsQuantized<Codes>) {
      layout.units_per_row = cols / kQuantBlock * Codes::kUnits;
      layout.high_units = Codes::kHighUnits;
      layout.scale_units = Codes::Scales::kUnits;
      layout.has_d = Codes::Scales::kHasD;
    } else {
      layout.units_per_row = divide_up(cols, Codes::kPerUnit);
    }
  });
  return layout;
}

void relayout(const KernelStream& stream, DType dtype, const std::byte* raw, const MatrixView& w, int32_t first_group,
              int32_t n_groups) {
  const auto shape = [](int64_t n) { return Shape{dim3(static_cast<unsigned>(divide_up(n, kThreads))), kThreads}; };
  with_codes(dtype, [&](auto codes) {
    using Codes = decltype(codes);
    if constexpr (kIsQuantized<Codes>) {
      const int64_t n = int64_t{n_groups} * (w.cols / kQuantBlock) * kGroup;
      launch(stream, shape(n), relayout_blocks<Codes>, reinterpret_cast<const typename Codes::Block*>(raw), w,
             first_group, n);
    } else {
      const int64_t n = int64_t{n_groups} * w.units_per_row * kGroup;
      launch(stream, shape(n), relayout_floats<Codes>, reinterpret_cast<const typename Codes::Element*>(raw), w,
             first_group, n);
    }
  });
}

void embed(const KernelStream& stream, DType dtype, const MatrixView& w, const TokenView& tokens, int32_t n,
           float scale, float* y) {
  with_codes(dtype, [&](auto codes) {
    launch(stream, {dim3(static_cast<unsigned>(n)), kThreads}, embed_rows<decltype(codes)>, w, tokens, scale, y);
  });
}

}  // namespace llorch::cuda
