// What the kernels of numeric mode `fast` take (docs/numerics.md), and the functions that put them into a stream.
#pragma once

#include "backend/cuda/kernels.h"
#include "backend/cuda/tiling.h"

namespace llorch::cuda {

// Units of a row of HalfRows, and elements of a row that fills them.
inline constexpr uint32_t kWholeHalfUnits = kHalvesPerUnit * kStageUnits;
inline int32_t half_units(int32_t cols) { return divide_up(cols, kHalvesPerUnit * kStageUnits) * kStageUnits; }

// The same for rows of silu(gate) * up that do not exist yet: their scale [rows] from the norm of what gate and up will
// read. weights: a bound of the norms of a row of gate's matrix times one of up's. scale null: not wanted.
struct GatedScale {
  float* scale = nullptr;
  float weights = 0.0f;
};
// Sums of shares of K that are not in x yet: half_rows() adds them to x, in x's memory, before it reads it.
// [n][rows][x's stride]; n 1: there are none.
struct Shares {
  const float* sums = nullptr;
  int32_t n = 1;
};
void half_rows(const KernelStream& stream, DType dtype, const InputRows& in, int32_t n, const HalfRows& out,
               const GatedScale& gated, const Shares& shares);

// Of a matrix: the sum of squares of its largest row, and its largest weight, or product or minimum that make one. Both
// as the bits of floats, which are in order as integers are. *out becomes no smaller than what w has.
struct MatrixSize {
  unsigned row_squares = 0, weight = 0;
};
void measure_matrix(const KernelStream& stream, DType dtype, const MatrixView& w, MatrixSize* out);

// Weights of f16 and bf16 are multiplied as they lie; quantized ones are divided by `scale`, a power of two, and
// rounded to f16.
struct TensorPart : LinearPart {
  DType dtype = DType::kF16;
  float scale = 1.0f;
};
struct TensorLinearArgs {
  TensorPart parts[kMaxParts];  // all quantized, or all of one float type
  int32_t n_parts = 0, n_groups = 0;
  int32_t n_rows = 0;
  HalfRows x;
  float* y = nullptr;
  int32_t y_width = 0;
  bool accumulate = false;
  const uint4* zeros = nullptr;  // a group's stage of them
  int32_t n_shares = 1;          // of K; more than one need:
  float* partial = nullptr;  // their sums: in tiles (tensor_shares.h) or, where they are left, [shares][rows][y_width]
  unsigned* arrivals = nullptr;  // [tiles][kTileWarps], 0 before and after
  bool leaves_shares = false;    // of an accumulating product: somebody else adds them to y
  HalfRows gated;                // units not null: two parts, gate and up; silu(gate) * up goes there, and not to y
};
// In tiles of x.tile_rows. For devices with wgmma.
void linear_on_tensor_cores(const KernelStream& stream, const TensorLinearArgs& args);
void linear_of_blocks_on_tensor_cores(const KernelStream& stream, const TensorLinearArgs& args);
// For all devices; in tiles of 32 or kMmaTileRows.
void linear_with_mma(const KernelStream& stream, const TensorLinearArgs& args);

// Attention of tiles of up to kTensorQueries / heads_per_tile rows (BatchView::wide_tiles), n_tiles of them.
inline constexpr int kTensorQueries = 128;
bool attention_has_tensor_cores(int32_t head_dim, DType kv);
void attention_on_tensor_cores(const KernelStream& stream, const AttentionArgs& args);
// The same for n_tiles rows one by one; where each is a sequence of its own, RopeAppend is fused, if its angles are
// given.
void attention_of_decodes_on_tensor_cores(const KernelStream& stream, const AttentionArgs& args);

}  // namespace llorch::cuda
