// How the tensor cores' Linear is cut: tiles of outputs and rows, and shares of K where there are few tiles.
#pragma once

#include <cstddef>
#include <cstdint>

namespace llorch::cuda {

inline constexpr int kTileGroups = 8;    // groups of 32 outputs that a block makes at once
inline constexpr int kTileRows = 128;    // rows of activations, the same, at most; a multiple of:
inline constexpr int kMmaTileRows = 64;  // without wgmma
inline constexpr int kRowSteps = 32;
inline constexpr int kHalvesPerUnit = 8;  // elements of 16 bits in a unit of 16 bytes
inline constexpr int kStageUnits = 8;     // units of K that go through shared memory at a time

// What a product is, as far as that decides.
struct ProductShape {
  int32_t n_rows, n_groups, n_stages;
  bool leaves_shares = false;  // the norm behind it adds them, in as many blocks as there are rows
};
struct Tiling {
  int32_t rows = kTileRows;  // of a tile: 32, 64, 96 or 128
  int32_t n_shares = 1;      // none of them is empty; more than one: all blocks run at once
};
// The fastest, by what was measured with wgmma. most_rows: of a tile.
Tiling choose_tiling(const ProductShape& shape, int n_multiprocessors, int32_t most_rows = kTileRows);

// What shares need at most: blocks of a product that has them; sums, and counters of arrivals.
inline constexpr int kMaxBlocks = 144;
inline constexpr int kTileWarps = 8;
inline constexpr size_t kMaxArrivals = size_t{kMaxBlocks / 2} * kTileWarps;
size_t most_share_floats(const ProductShape& shape);

}  // namespace llorch::cuda
