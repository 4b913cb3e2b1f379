// What the kernels of numeric mode `fast` take (docs/numerics.md), and the functions that put them into a stream.
#pragma once

#include "backend/cuda/kernels.h"

namespace llorch::cuda {

inline constexpr int kTileGroups = 8;  // groups of 32 outputs that a block makes at once
inline constexpr int kTileRows = 128;  // rows of activations, the same, at most
inline constexpr int kStageUnits = 8;  // units of K that go through shared memory at a time

// Rows of a tile of a batch of so many: 32, 64 or 128; or 96 where the tiles of these matrices then are done earlier
// (2,560 outputs of 2,048 rows: two rounds of 132 blocks, of 96 rows instead of 128).
int32_t tile_rows_of(int32_t n_rows);
int32_t tile_rows_of(int32_t n_rows, int32_t n_groups, int n_multiprocessors);

// Units of a row of HalfRows, and elements of a row that fills them.
inline constexpr uint32_t kWholeHalfUnits = 8 * kStageUnits;
inline int32_t half_units(int32_t cols) { return divide_up(cols, 8 * kStageUnits) * kStageUnits; }

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

// The sum of squares of each row of a matrix of f16 or bf16, out [groups * 32].
void row_squares(const KernelStream& stream, DType dtype, const MatrixView& w, float* out);

struct TensorLinearArgs {
  LinearPart parts[kMaxParts];
  int32_t n_parts = 0, n_groups = 0;
  int32_t n_rows = 0;
  HalfRows x;
  float* y = nullptr;
  int32_t y_width = 0;
  bool accumulate = false;
  const uint4* zeros = nullptr;  // a group's stage of them
  float* partial = nullptr;      // sums of shares of K
  int32_t n_splits = 1;          // shares; chosen by linear_on_tensor_cores()
  bool leaves_shares = false;    // of an accumulating product: somebody else adds them to y
  HalfRows gated;                // units not null: two parts, gate and up; silu(gate) * up goes there, and not to y
};
// Blocks of a product whose K is cut, at most; shares of K, at most; and what their sums take.
inline constexpr int kMaxBlocks = 144;
size_t most_shares(int32_t cols);
inline constexpr size_t kMaxPartialFloats = size_t{kMaxBlocks} * kTileGroups * kGroup * kTileRows;
// Says in how many shares the sums are left, if args ask for that: 1 if y is whole.
int32_t linear_on_tensor_cores(const KernelStream& stream, DType dtype, const TensorLinearArgs& args);

// Attention of tiles of up to kTensorQueries / heads_per_tile rows (BatchView::wide_tiles), n_tiles of them.
inline constexpr int kTensorQueries = 128;
bool attention_has_tensor_cores(int32_t head_dim, DType kv);
void attention_on_tensor_cores(const KernelStream& stream, const AttentionArgs& args);
// The same where each of n_tiles rows is a sequence of its own; RopeAppend is fused, if its angles are given.
void attention_of_decodes_on_tensor_cores(const KernelStream& stream, const AttentionArgs& args);

}  // namespace llorch::cuda
