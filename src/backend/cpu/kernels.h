// The CPU's kernels as a table of functions, one table for each instruction set. Every table gives the same bits: those
// of backend/reference/arithmetic.h.
#pragma once

#include <cstddef>
#include <cstdint>
#include <iterator>

#include "backend/cpu/quant_layout.h"
#include "plan/op.h"
#include "tensor/dtype.h"

namespace llorch::cpu {

inline constexpr int kMaxTileRows = 12;   // activation rows of one tile, at most
inline constexpr int kWidenedGroups = 8;  // weight groups for which many rows of activations are fetched once
inline constexpr int kMaxQueries = 8;     // query vectors of one attention tile, at most

// Activation rows [rows, cols] in the form that linear kernels read: tiles of up to kMaxTileRows rows, inside a tile
// one column's values side by side. Tile rows come from Kernels::tile_rows. Each array is addressed by a tile's first
// row:
//   floats  [cols][tile rows]                                     at first_row * cols
//   pairs   [cols / 32][16][tile rows], two int16 to a word       at first_row * cols / 2
//   scales  [cols / 32][tile rows], both sums the same            at first_row * cols / 32
struct PackedRows {
  float* floats = nullptr;
  int32_t* pairs = nullptr;
  float* scales = nullptr;
  int32_t* sums = nullptr;        // of a block's 32 integers
  int32_t* first_sums = nullptr;  // of its first 16
};

// A weight matrix in groups of 16 rows (layout.h).
struct MatrixView {
  const std::byte* data = nullptr;    // groups, data_stride bytes apart, 64-byte aligned
  const std::byte* scales = nullptr;  // of block-quantized types: records (quant_layout.h), scale_stride bytes a group
  size_t data_stride = 0, scale_stride = 0;
  int32_t rows = 0;  // valid ones; the last group is padded with zeros
  int32_t cols = 0;
};

struct LinearArgs {
  MatrixView w;
  int32_t first_group = 0, last_group = 0;  // [first, last) of this call
  PackedRows x;
  int32_t n_rows = 0;
  float* y = nullptr;  // [n_rows, ldy]; column 0 is weight row 0
  size_t ldy = 0;
  const float* bias = nullptr;  // [w.rows] or null
  bool accumulate = false;
};

// One tile of query vectors that share a sequence and a KV head. Pages are the program's own (kv_cache.h).
struct AttentionArgs {
  int32_t n_queries = 0;
  const float* q[kMaxQueries];    // [head_dim]
  float* y[kMaxQueries];          // [head_dim]
  int32_t position[kMaxQueries];  // absolute; attends to max(0, position - window + 1) .. position
  int32_t window = 0;             // 0: none
  int32_t head_dim = 0;
  float scale = 0.0f;
  const uint32_t* pages = nullptr;  // page table of the sequence
  int32_t page_shift = 0;           // log2(page size)
  const std::byte* k = nullptr;     // this layer's and head's keys of page 0: [page_size / 16][head_dim][16]
  const std::byte* v = nullptr;     // values: [page_size][head_dim]
  size_t page_stride = 0;           // bytes from a page to the next
  float* scratch = nullptr;         // [kMaxQueries * head_dim]
};

struct RopeArgs {
  float* qkv = nullptr;  // one row
  const float* cos = nullptr;
  const float* sin = nullptr;  // [head_dim / 2]
  int32_t n_heads = 0, n_kv_heads = 0, head_dim = 0;
  RopePairs pairs = RopePairs::kInterleaved;
  std::byte* k = nullptr;         // where this position's key of KV head 0 goes: element d at d * 16
  std::byte* v = nullptr;         // value of KV head 0: contiguous
  std::byte* k_scales = nullptr;  // in 8 bit, of KV head 0: block b at b * 16
  std::byte* v_scales = nullptr;  // contiguous
  size_t head_stride = 0;         // bytes from a KV head to the next
};

struct Kernels {
  const char* name;
  // Rows of the next tile when `rows` are left: one of the sizes that the linear kernels are compiled for.
  int (*tile_rows)(DType weights, int rows);
  void (*linear[std::size(kDTypes)])(const LinearArgs&);  // by DType
  // Packs rows into a tile: x[i] is row i, `first_row` of all rows.
  void (*pack_floats)(const float* const* x, int rows, int cols, float* out);
  void (*pack_quantized)(const float* const* x, int rows, int cols, const PackedRows& out);
  void (*rms_norm)(const float* x, const float* weight, float eps, int n, float* y);
  void (*gated_silu)(const float* gate, const float* up, int n, float* y);
  void (*rope_append_f16)(const RopeArgs&);
  void (*rope_append_f32)(const RopeArgs&);
  void (*rope_append_q8)(const RopeArgs&);
  void (*attention_f16)(const AttentionArgs&);
  void (*attention_f32)(const AttentionArgs&);
  void (*attention_q8)(const AttentionArgs&);
  // Benches: read every byte once (a multiple of 4096) in one, two, four streams; return a checksum.
  double (*read_loops[3])(const std::byte* data, size_t bytes);
  double (*fma_loop)(long iterations);  // benches: fma_lanes * iterations multiply-adds
  int fma_lanes;
};

// Tables of the instruction sets that this binary holds; null where the compiler's target has no such set.
const Kernels* avx2_kernels();
const Kernels* avx512_kernels();
const Kernels* avx512vnni_kernels();
const Kernels* neon_kernels();

}  // namespace llorch::cpu
