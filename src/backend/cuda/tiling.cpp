#include "backend/cuda/tiling.h"

#include <algorithm>

#include "backend/cuda/kernels.h"

namespace llorch::cuda {
namespace {

constexpr int32_t kMinStages = 2;  // of a share

// Time in units of 4.3 ns, of one H100. A stage of 32 rows takes 0.7 us, one of 128 rows 1.1 (2,048 by 11,264: 44
// blocks of 32 stages 28 us, 88 blocks 40, of which 5 are no stages). That one block adds all shares of a tile is
// estimated: 1.3 us until it knows that it may, then 1 KB a row and share at 66 GB/s.
constexpr int64_t kStage = 128, kJoin = 300;
int64_t stage_time(int32_t rows) { return kStage + rows; }
int64_t join_time(int32_t rows, int32_t n_shares) { return kJoin + int64_t{rows} * n_shares * 7 / 2; }

int32_t most_shares(int32_t n_stages) { return std::max(1, n_stages / kMinStages); }

}  // namespace

Tiling choose_tiling(const ProductShape& shape, int n_multiprocessors, int32_t most_rows) {
  Tiling best;
  int64_t least = INT64_MAX;
  for (int32_t rows = most_rows; rows > 0; rows -= kRowSteps) {
    const int32_t tiles = divide_up(shape.n_rows, rows) * divide_up(shape.n_groups, kTileGroups);
    const int32_t at_once = std::min(n_multiprocessors, kMaxBlocks) / tiles;
    for (int32_t n = 1; n <= std::clamp(at_once, 1, most_shares(shape.n_stages)); ++n) {
      const int32_t stages = divide_up(shape.n_stages, n);
      if (divide_up(shape.n_stages, stages) != n) continue;  // the last would be empty
      int64_t time = stage_time(rows) * stages * divide_up(int64_t{tiles} * n, n_multiprocessors);
      if (n > 1 && !shape.leaves_shares) time += join_time(std::min(rows, shape.n_rows), n);
      if (time >= least) continue;
      least = time;
      best = {rows, n};
    }
  }
  return best;
}

size_t most_share_floats(const ProductShape& shape) {
  const auto rows = static_cast<size_t>(shape.n_rows) + kTileRows;
  const auto groups = static_cast<size_t>(divide_up(shape.n_groups, kTileGroups)) * kTileGroups;
  const size_t of_all = rows * groups * static_cast<size_t>(most_shares(shape.n_stages));
  return std::min(of_all, size_t{kMaxBlocks} * kTileGroups * kTileRows) * kGroup;
}

}  // namespace llorch::cuda
