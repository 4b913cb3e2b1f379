// From the rows of a file to the device's layout (codes.h), and back for single rows.
#include "backend/cuda/codes.h"
#include "backend/cuda/launch.h"

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

// One thread makes one block of 32 with its scale, also those that fill the last segment.
template <typename Codes>
__global__ void relayout_blocks(const typename Codes::Block* raw, MatrixView w, int first_group, int64_t n) {
  const int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i >= n) return;
  const int lane = static_cast<int>(i % kGroup);
  const int n_scales = w.segments * kBlocksPerSegment;  // of a row, with padding
  const int block = static_cast<int>(i / kGroup % n_scales);
  const int64_t local_group = i / kGroup / n_scales, group = first_group + local_group;
  const int64_t local_row = local_group * kGroup + lane;
  const int n_blocks = w.cols / kQuantBlock;
  const bool exists = group * kGroup + lane < w.rows && block < n_blocks;
  union {
    uint8_t bytes[16 * Codes::kUnits];
    uint4 units[Codes::kUnits];
  } out;
  for (int u = 0; u < Codes::kUnits; ++u) out.units[u] = make_uint4(0, 0, 0, 0);
  uint16_t scale = 0, minimum = 0;
  if (exists) {
    const typename Codes::Block& b = raw[local_row * n_blocks + block];
    Codes::store(b, out.bytes);
    scale = b.d;
    minimum = Codes::minimum(b);
  }
  const int64_t at = ((group * w.segments + block / kBlocksPerSegment) * kGroup + lane) * kBlocksPerSegment +
                     block % kBlocksPerSegment;
  w.scales[at] = scale;
  if (w.minimums != nullptr) w.minimums[at] = minimum;
  if (block >= n_blocks) return;
  for (int u = 0; u < Codes::kUnits; ++u)
    w.units[(group * w.units_per_row + block * Codes::kUnits + u) * kGroup + lane] = out.units[u];
}

// The dequantized element of a matrix on the device: exactly what tensor/blocks.h makes of the file's.
template <typename Codes>
__device__ float element(const MatrixView& w, int row, int col) {
  const int64_t group = row / kGroup;
  const int lane = row % kGroup;
  if constexpr (kIsQuantized<Codes>) {
    const int block = col / kQuantBlock;
    uint4 units[Codes::kUnits];
    for (int u = 0; u < Codes::kUnits; ++u)
      units[u] = w.units[(group * w.units_per_row + block * Codes::kUnits + u) * kGroup + lane];
    int words[kWordsPerBlock];
    Codes::words(units, words);
    const int k = col % kQuantBlock;
    const int code = static_cast<int8_t>(words[k / 4] >> (8 * (k % 4))) - Codes::kOffset;
    const int64_t at = ((group * w.segments + block / kBlocksPerSegment) * kGroup + lane) * kBlocksPerSegment +
                       block % kBlocksPerSegment;
    const float product = __fmul_rn(widen_f16(w.scales[at]), static_cast<float>(code));
    return w.minimums == nullptr ? product : __fadd_rn(product, widen_f16(w.minimums[at]));
  } else {
    float values[Codes::kPerUnit];
    Codes::widen(w.units[(group * w.units_per_row + col / Codes::kPerUnit) * kGroup + lane], values);
    return values[col % Codes::kPerUnit];
  }
}

template <typename Codes>
__global__ void embed_rows(MatrixView w, const int32_t* tokens, float scale, float* y) {
  wait_for_inputs();
  const int row = tokens[blockIdx.x];
  for (int k = static_cast<int>(threadIdx.x); k < w.cols; k += static_cast<int>(blockDim.x))
    y[size_t{blockIdx.x} * w.cols + k] = __fmul_rn(element<Codes>(w, row, k), scale);
}

}  // namespace

RowLayout row_layout(DType dtype, int32_t cols) {
  RowLayout layout{0, divide_up(cols, kSegment), false, false};
  with_codes(dtype, [&](auto codes) {
    using Codes = decltype(codes);
    if constexpr (kIsQuantized<Codes>) {
      layout.units_per_row = cols / kQuantBlock * Codes::kUnits;
      layout.has_scales = true;
      layout.has_minimums = Codes::Block::kHasMinimum;
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
      const int64_t n = int64_t{n_groups} * w.segments * kBlocksPerSegment * kGroup;
      launch(stream, shape(n), relayout_blocks<Codes>, reinterpret_cast<const typename Codes::Block*>(raw), w,
             first_group, n);
    } else {
      const int64_t n = int64_t{n_groups} * w.units_per_row * kGroup;
      launch(stream, shape(n), relayout_floats<Codes>, reinterpret_cast<const typename Codes::Element*>(raw), w,
             first_group, n);
    }
  });
}

void embed(const KernelStream& stream, DType dtype, const MatrixView& w, const int32_t* tokens, int32_t n, float scale,
           float* y) {
  with_codes(dtype, [&](auto codes) {
    launch(stream, {dim3(static_cast<unsigned>(n)), kThreads}, embed_rows<decltype(codes)>, w, tokens, scale, y);
  });
}

}  // namespace llorch::cuda
