#include "backend/cuda/batch_block.h"

#include <algorithm>

namespace llorch::cuda {
namespace {

// The half; seven words a row: token, position, table, and two tiles of two words at most; a word for each row with
// logits; and the pages of a whole context for each row, if each is a sequence of its own.
size_t capacity(const Plan& plan, const CompileOptions& options) {
  const size_t pages = static_cast<size_t>(divide_up(plan.context(), options.kv.page_size));
  return 1 + options.max_rows * (7 + pages) + options.max_logit_rows;
}

void put_tiles(const Batch::Sequence& s, uint32_t rows_per_tile, uint32_t*& at) {
  for (uint32_t i = 0; i < s.n_rows; i += rows_per_tile) {
    *at++ = s.first_row + i;
    *at++ = std::min(rows_per_tile, s.n_rows - i);
  }
}

}  // namespace

size_t BatchBlock::bytes(const Plan& plan, const CompileOptions& options) {
  return capacity(plan, options) * sizeof(uint32_t);
}

BatchBlock::BatchBlock(const Plan& plan, const CompileOptions& options, uint32_t rows_per_tile,
                       uint32_t rows_per_wide_tile)
    : page_size_(options.kv.page_size),
      rows_per_tile_(rows_per_tile),
      rows_per_wide_tile_(rows_per_wide_tile),
      host_(kActivationMemory, 2 * capacity(plan, options)),
      device_(kActivationMemory, host_.size() / 2) {}

void BatchBlock::fill(const Batch& batch, uint32_t half) {
  rows_ = batch.rows();
  logit_rows_ = static_cast<uint32_t>(batch.logit_rows.size());
  tiles_ = wide_tiles_ = 0;
  for (const Batch::Sequence& s : batch.sequences) {
    tiles_ += static_cast<uint32_t>(divide_up(s.n_rows, rows_per_tile_));
    wide_tiles_ += static_cast<uint32_t>(divide_up(s.n_rows, rows_per_wide_tile_));
  }
  is_one_row_each_ = batch.sequences.size() == rows_;
  uint32_t* const block = host_.data() + half * device_.size();
  uint32_t* const tokens = block + 1;
  uint32_t* const positions = tokens + rows_;
  uint32_t* const tables = positions + rows_;
  uint32_t* const logit_rows = tables + rows_;
  uint32_t* tile = logit_rows + logit_rows_;
  uint32_t* wide_tile = tile + size_t{2} * tiles_;
  uint32_t* const pages = wide_tile + size_t{2} * wide_tiles_;
  uint32_t* next_page = pages;
  std::copy(batch.tokens.begin(), batch.tokens.end(), reinterpret_cast<int32_t*>(tokens));
  std::copy(batch.logit_rows.begin(), batch.logit_rows.end(), logit_rows);
  for (const Batch::Sequence& s : batch.sequences) {
    for (uint32_t i = 0; i < s.n_rows; ++i) {
      positions[s.first_row + i] = s.first_position + i;
      tables[s.first_row + i] = static_cast<uint32_t>(next_page - pages);
    }
    put_tiles(s, rows_per_tile_, tile);
    put_tiles(s, rows_per_wide_tile_, wide_tile);
    const auto n_pages = static_cast<uint32_t>(divide_up(int64_t{s.first_position} + s.n_rows, page_size_));
    next_page = std::copy_n(batch.pages.begin() + s.first_page, n_pages, next_page);
  }
  block[0] = half;
  filled_ = block;
  words_ = static_cast<size_t>(next_page - block);
}

void BatchBlock::send(const Stream& stream) { stream.to_device(device_.data(), filled_, words_); }

BatchView BatchBlock::view() const {
  BatchView view;
  const uint32_t* at = device_.data();
  view.half = at++;
  view.tokens = reinterpret_cast<const int32_t*>(at);
  view.positions = at += rows_;
  view.tables = at += rows_;
  view.logit_rows = at += rows_;
  view.tiles = reinterpret_cast<const AttentionTile*>(at += logit_rows_);
  view.wide_tiles = reinterpret_cast<const AttentionTile*>(at += size_t{2} * tiles_);
  view.pages = at + size_t{2} * wide_tiles_;
  return view;
}

}  // namespace llorch::cuda
