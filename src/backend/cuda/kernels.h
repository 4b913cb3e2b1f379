// What the kernels take, and the functions that put them into a stream. For host code too; each file of kernels says
// how it works.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>

#include "plan/op.h"
#include "tensor/dtype.h"

namespace llorch::cuda {

inline constexpr int kGroup = 32;        // weight rows that lie side by side; one lane each
inline constexpr int kSegment = 256;     // of K; docs/numerics.md
inline constexpr int kQuantBlock = 32;   // activations that share a scale
inline constexpr int kMaxTileRows = 8;   // rows that share one load of a weight, at most
inline constexpr int kFusedRows = 2;     // rows whose norm and int16 blocks each block of a Linear makes, at most
inline constexpr int kMaxQueries = 8;    // query vectors of one attention tile, at most
inline constexpr int kChunk = 64;        // positions of one softmax chunk
inline constexpr int kMaxHeadDim = 256;  // and a multiple of kHeadDimStep
inline constexpr int kHeadDimStep = 8;
inline constexpr int kKvBlockSize = 32;  // elements of a head that share a scale in q8_0

inline constexpr int32_t divide_up(int64_t n, int64_t by) { return static_cast<int32_t>((n + by - 1) / by); }

// Bytes of shared memory that a block can ask for, and that a multiprocessor has, of which it keeps 1 KB a block. As
// compute capability 9.0 has them; 8.0: 163 and 164 KB, 8.6, 8.9 and 12.0: 99 and 100 KB.
struct SharedMemory {
  size_t of_block = 227 << 10, of_multiprocessor = 228 << 10;
};

// Where kernels go, and what the device is. overlaps: it can begin a kernel while the one before it ends (launch.h).
struct KernelStream {
  cudaStream_t stream = nullptr;
  bool overlaps = false;
  int n_multiprocessors = 1;
  SharedMemory shared = {};
  bool has_wgmma = true;  // products of four warps
};

// A weight matrix [rows, cols] in device memory; codes.h says how it lies there.
struct MatrixView {
  uint4* units = nullptr;
  uint4* highs = nullptr;   // of quantized types, those that have such
  uint4* scales = nullptr;  // of quantized types
  uint16_t* d = nullptr;    // f16, of those that have such
  int32_t rows = 0, cols = 0;
  int32_t units_per_row = 0, segments = 0;
};

// How a row of `cols` elements of a type lies on the device.
struct RowLayout {
  int32_t units_per_row = 0;
  int32_t segments = 0;
  int32_t high_units = 0, scale_units = 0;  // of a segment
  bool has_d = false;
};
RowLayout row_layout(DType dtype, int32_t cols);

// raw: `n_groups` times 32 rows as they lie in a file (fewer at the matrix's end) -> groups from first_group on, in
// memory that is zero.
void relayout(const KernelStream& stream, DType dtype, const std::byte* raw, const MatrixView& w, int32_t first_group,
              int32_t n_groups);

// A batch in device memory; its arrays are one block (batch_block.h).
struct AttentionTile {  // rows of one sequence
  uint32_t first_row, n_rows;
};
struct BatchView {
  const uint32_t* half = nullptr;       // of pinned memory, 0 or 1: which one the step has
  const int32_t* tokens = nullptr;      // [rows]; token_of_row_in_flight() too
  const uint32_t* positions = nullptr;  // [rows], absolute
  const uint32_t* tables = nullptr;     // [rows]: where the row's page table starts in pages
  const uint32_t* logit_rows = nullptr;
  const AttentionTile* tiles = nullptr;
  const AttentionTile* wide_tiles = nullptr;  // of more rows
  const uint32_t* pages = nullptr;
};

// tokens [n]; sampled: the tokens that the step before has sampled, where token_of_row_in_flight() finds them (one that
// it has not, of a faulty row, counts as 0).
struct TokenView {
  const int32_t* tokens = nullptr;
  const int32_t* sampled = nullptr;
};

// y[r] = row tokens[r] of w, times scale; y [n, w.cols]
void embed(const KernelStream& stream, DType dtype, const MatrixView& w, const TokenView& tokens, int32_t n,
           float scale, float* y);

// Rows that a Linear reads: slot rows as they are, or what a RmsNorm or GatedAct makes of them.
enum class Prepare : uint8_t { kNone, kRmsNorm, kGatedAct };
struct InputRows {
  const float* x = nullptr;  // [rows, stride]
  int32_t stride = 0;
  int32_t cols = 0;  // of the rows that come out; GatedAct reads twice as many
  Prepare prepare = Prepare::kNone;
  const float* norm_weight = nullptr;  // [cols]
  float eps = 0.0f;
};

// Stores the prepared rows: the steps RmsNorm and GatedAct by themselves. y [n, cols]
void prepare_rows(const KernelStream& stream, const InputRows& in, int32_t n, float* y);

// Activations as int16 blocks of 32. q null: there are none.
struct PackedRows {
  int16_t* q = nullptr;     // [rows, cols]
  float* d = nullptr;       // [rows, cols / 32]
  int32_t* sums = nullptr;  // of a block's 32 integers, the same
};
void pack_rows(const KernelStream& stream, const InputRows& in, int32_t n, const PackedRows& out);

// y = the rows of x that want logits. [n, width]
void gather_rows(const KernelStream& stream, const float* x, const uint32_t* rows, int32_t n, int32_t width, float* y);

// When the kernel behind this one may begin, and ask for its weights. These are on their way early then, and in the way
// of what this one reads.
enum class NextBegins : uint8_t {
  kAtOnce,
  kWithInput,   // when what the kernels before have written is there
  kAfterInput,  // when it has been read
};

inline constexpr int kMaxParts = 4;
struct LinearPart {  // one of the stacked matrices
  MatrixView w;
  const float* bias = nullptr;
  int32_t first_group = 0;  // counted through all parts
  int32_t column = 0;       // of y
};
struct LinearArgs {
  LinearPart parts[kMaxParts];  // of one type
  int32_t n_parts = 0, n_groups = 0;
  int32_t n_rows = 0;
  // Up to kFusedRows rows may want a norm, and have no int16 blocks (q null) yet: each block makes them for itself.
  // More rows are plain, or packed where weights are quantized.
  InputRows x;
  PackedRows packed;
  float* y = nullptr;
  int32_t y_width = 0;
  bool accumulate = false;
  // The two parts are gate and up: y is their gated activation.
  bool gates = false;
  PackedRows packed_y;  // and its int16 blocks, where they are asked for
  // Of a Linear in several types, whose kernels read the same rows and write beside each other: all but the last let
  // the next one begin with their input; all but the first take that for granted, and end after the others.
  bool is_first = true;
  NextBegins next = NextBegins::kAtOnce;
  // Chosen by linear(): whether a block makes half a group at a time; whether it makes only one; segments, or pieces of
  // them, that a warp has under way; whether a block keeps its input for the next one.
  bool halves = false, one_task = false;
  int32_t n_slots = 1;
  bool keeps_input = false;
};

void linear(const KernelStream& stream, DType dtype, LinearArgs args);
void linear_of_floats(const KernelStream& stream, DType dtype, LinearArgs args);
void linear_of_blocks(const KernelStream& stream, DType dtype, LinearArgs args);

// KV pages of one layer: [page][kv head]{ keys [head_dim / unit][page_size][unit], values [page_size][head_dim] }, with
// units of 16 bytes, so that neighbouring lanes, which have neighbouring positions, read neighbouring units. In q8_0 a
// unit is 8 bytes, because a head may be no multiple of 16; behind the keys come their scales [blocks][page_size], and
// behind the value of each position its own [blocks].
struct KvView {
  std::byte* memory = nullptr;
  size_t page_bytes = 0;
  size_t half_bytes = 0;   // keys, or values, of one head in one page; a multiple of 16
  int32_t page_shift = 0;  // log2(page size)
  int32_t n_kv_heads = 0, n_heads = 0, head_dim = 0;
  int32_t value_bytes = 0;  // of one head at one position
  DType dtype = DType::kF16;
};

struct RopeArgs {
  float* qkv = nullptr;  // [n, (n_heads + 2 n_kv_heads) * head_dim]
  const float* cos = nullptr;
  const float* sin = nullptr;  // [context, head_dim / 2]
  RopePairs pairs = RopePairs::kInterleaved;
  int32_t first_head = 0;  // to rotate, of queries and then keys: n_heads where attention rotates the queries itself
  KvView kv;
  BatchView batch;
};
void rope_append(const KernelStream& stream, const RopeArgs& args, int32_t n);

// Activations as f16 or bf16, for the matrix units: [tiles][units][tile's rows][8 elements], as many units as fill
// stages; and the power of two that each row was divided by.
struct HalfRows {
  uint4* units = nullptr;
  float* scale = nullptr;  // [rows]
  int32_t n_units = 0;     // of a row
  int32_t tile_rows = 0;
};

struct MemoryAhead {
  const std::byte* at = nullptr;
  uint32_t bytes = 0;  // a multiple of 16
};

struct AttentionArgs {
  NextBegins next = NextBegins::kAtOnce;  // attention_of_decodes
  const float* qkv = nullptr;
  float* y = nullptr;   // [rows, n_heads * head_dim]
  PackedRows packed_y;  // and its int16 blocks, of attention_of_decodes where the head size is a multiple of 32
  HalfRows half_y;      // on tensor cores; units not null: y goes there instead, as half_type
  DType half_type = DType::kF16;
  float scale = 0.0f;
  uint32_t window = 0;  // 0: none
  KvView kv;
  BatchView batch;
  int32_t n_tiles = 0;         // of attention_of_decodes: rows
  int32_t heads_per_tile = 0;  // of a KV head's group
  int32_t n_splits = 1;        // blocks that share a tile's chunks; more than 1 needs:
  // [tile][kv head's tile][chunk < max_chunks][queries][head_dim + 2], queries: kMaxQueries, of attention_of_decodes
  // heads_per_tile
  float* partial = nullptr;
  int32_t max_chunks = 0;
  unsigned* arrivals = nullptr;  // [tiles * kv tiles], zero between launches
  // What attention_of_decodes of one row asks for into the second-level cache, for the products behind it.
  MemoryAhead ahead;
  // attention_of_decodes does RopeAppend too, and attention_on_tensor_cores rotates queries, if these are given (as
  // RopeArgs).
  const float* cos = nullptr;
  const float* sin = nullptr;
  RopePairs pairs = RopePairs::kInterleaved;
};
void attention(const KernelStream& stream, const AttentionArgs& args);
// The same where each row is a sequence of its own; heads_per_tile is 1, 2, 4 or 8. Where shared memory has no room for
// a chunk of keys and values, only attention() will do.
bool has_room_for_decodes(const KernelStream& stream, const KvView& kv);
void attention_of_decodes(const KernelStream& stream, const AttentionArgs& args);

// Benches. Reads `bytes` (a multiple of 1 MiB) with `unroll` loads of 16 bytes in flight (1, 4 or 8); a checksum of
// each block goes to sink [blocks].
void read_all(const KernelStream& stream, const uint4* data, size_t bytes, int unroll, int blocks, unsigned* sink);
// blocks * 256 threads, each 8 * iterations multiply-adds.
void multiply_add(const KernelStream& stream, int iterations, int blocks, float* sink);

}  // namespace llorch::cuda
