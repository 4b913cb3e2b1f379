// How much memory a program has beside slots and pages: packed rows, and sums that several blocks of a kernel share.
#pragma once

#include "backend/backend.h"

namespace llorch::cuda {

struct ScratchSizes {
  ScratchSizes(const Plan& plan, const CompileOptions& options);
  size_t bytes() const;

  static constexpr size_t kPacked = 2;  // sets of packed rows: one is read while the next is made

  size_t packed = 0;              // elements of rows as int16, of each set
  size_t packed_blocks = 0;       // their scales, and their sums
  size_t attention_partial = 0;   // floats
  size_t attention_arrivals = 0;  // counters
  uint32_t max_split_tiles = 0;   // of attention, for which there is room
};

// Query heads of a KV head's group that one attention tile takes, and tiles of one row: KV heads, times those of a
// group.
uint32_t heads_per_tile(const Plan& plan);
uint32_t kv_tiles(const Plan& plan);

// Whether a Linear reads quantized weights, or float ones; stacked ones may need both.
bool uses(const Plan& plan, const Linear& op, bool quantized);

}  // namespace llorch::cuda
