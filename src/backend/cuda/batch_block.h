// A batch as one block of words: filled in pinned memory, copied to the same place on the device for every run. The
// pinned block has two halves, for two steps in flight; which one a step has is the first word.
//
// Where its arrays lie depends on the number of rows, logits and tiles alone, so a recorded graph of decodes of n rows
// finds them again.
#pragma once

#include "backend/backend.h"
#include "backend/cuda/kernels.h"
#include "backend/cuda/memory.h"

namespace llorch::cuda {

class BatchBlock {
 public:
  // rows_per_tile: of an attention tile; of a wide one.
  BatchBlock(const Plan& plan, const CompileOptions& options, uint32_t rows_per_tile, uint32_t rows_per_wide_tile);

  // Of the device, and twice as many pinned.
  static size_t bytes(const Plan& plan, const CompileOptions& options);

  // half: 0 or 1. The copy that was queued from it before must be over.
  void fill(const Batch& batch, uint32_t half);
  void send(const Stream& stream);

  uint32_t rows() const { return rows_; }
  uint32_t logit_rows() const { return logit_rows_; }
  uint32_t tiles() const { return tiles_; }
  uint32_t wide_tiles() const { return wide_tiles_; }
  BatchView view() const;

  bool is_one_row_each() const { return is_one_row_each_; }

  // Each sequence has one row, and wants its logits.
  bool is_decode() const { return is_one_row_each_ && logit_rows_ == rows_; }

  size_t bytes() const { return device_.bytes(); }

 private:
  const uint32_t page_size_, rows_per_tile_, rows_per_wide_tile_;
  PinnedArray<uint32_t> host_;  // [2, capacity]
  DeviceArray<uint32_t> device_;
  uint32_t rows_ = 0, logit_rows_ = 0, tiles_ = 0, wide_tiles_ = 0;
  const uint32_t* filled_ = nullptr;
  size_t words_ = 0;
  bool is_one_row_each_ = false;
};

}  // namespace llorch::cuda
