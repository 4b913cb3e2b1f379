// How large a matrix is: numeric mode `fast` scales by it what it rounds to 16 bits. Once, when a program is made.
#include "backend/cuda/codes.h"
#include "backend/cuda/launch.h"
#include "backend/cuda/tensor_kernels.h"

namespace llorch::cuda {
namespace {

struct RowSize {
  float squares = 0.0f, weight = 0.0f;

  __device__ void add(float w) {
    squares = __fmaf_rn(w, w, squares);
    add_factor(w);
  }
  __device__ void add_factor(float x) {
    const float magnitude = fabsf(x);
    if (magnitude > weight && magnitude < INFINITY) weight = magnitude;
  }
};

// A block is a group, a thread a row.
template <typename Codes>
__global__ void measure_kernel(MatrixView w, MatrixSize* out) {
  const int64_t group = blockIdx.x;
  const int lane = static_cast<int>(threadIdx.x);
  RowSize size;
  if constexpr (kIsQuantized<Codes>) {
    for (int block = 0; block < w.cols / kQuantBlock; ++block) {
      const int b = block % kBlocksPerSegment;
      SegmentUnits<Codes, 1> units;
      units.load(segment_place<Codes>(w, group, block / kBlocksPerSegment, lane), b, 1,
                 [](const auto* p) { return *p; });
      int words[kWordsPerBlock];
      Codes::words(units.units[0], units.highs, b, words);
      const typename Codes::Scales scales = units.make_scales();
      for (int k = 0; k < kQuantBlock; ++k) {
        const float scaled =
            scales.scale((b * kQuantBlock + k) / Codes::Block::kScaleGroup) * __int2float_rn(code_at<Codes>(words, k));
        size.add_factor(scaled);
        if constexpr (Codes::Block::kHasMinimum) {
          size.add_factor(scales.minimum(b));
          size.add(scaled + scales.minimum(b));
        } else {
          size.add(scaled);
        }
      }
    }
  } else {
    for (int u = 0; u < w.units_per_row; ++u) {
      float values[Codes::kPerUnit];
      Codes::widen(w.units[(group * w.units_per_row + u) * kGroup + lane], values);
      for (const float value : values) size.add(value);
    }
  }
  atomicMax(&out->row_squares, __float_as_uint(size.squares));
  atomicMax(&out->weight, __float_as_uint(size.weight));
}

}  // namespace

void measure_matrix(const KernelStream& stream, DType dtype, const MatrixView& w, MatrixSize* out) {
  with_codes(dtype, [&](auto codes) {
    launch(stream, {dim3(static_cast<unsigned>(divide_up(w.rows, kGroup))), kGroup}, measure_kernel<decltype(codes)>, w,
           out);
  });
}

}  // namespace llorch::cuda
