#include "backend/cuda/tiling.h"

#include <gtest/gtest.h>

#include "backend/cuda/kernels.h"

namespace llorch::cuda {
namespace {

int32_t tiles_of(const ProductShape& shape, const Tiling& tiling) {
  return divide_up(shape.n_rows, tiling.rows) * divide_up(shape.n_groups, kTileGroups);
}

// Shares none of which is empty, all at once, with room for their sums and counters.
TEST(Tiling, SharesFit) {
  for (const int n_multiprocessors : {1, 4, 32, 132, 200})
    for (const int32_t n_groups : {1, 9, 80, 352, 1000})
      for (const int32_t n_stages : {1, 3, 5, 32, 88, 225})
        for (const int32_t n_rows : {9, 17, 32, 33, 100, 128, 129, 269, 700, 4096})
          for (const bool leaves_shares : {false, true}) {
            const ProductShape shape = {n_rows, n_groups, n_stages, leaves_shares};
            const Tiling tiling = choose_tiling(shape, n_multiprocessors);
            ASSERT_TRUE(tiling.rows % kRowSteps == 0 && tiling.rows > 0 && tiling.rows <= kTileRows) << tiling.rows;
            ASSERT_GE(tiling.n_shares, 1);
            if (tiling.n_shares == 1) continue;
            const int32_t tiles = tiles_of(shape, tiling), of_share = divide_up(n_stages, tiling.n_shares);
            ASSERT_LT((tiling.n_shares - 1) * of_share, n_stages);
            ASSERT_GE(of_share, 2);
            ASSERT_LE(tiles * tiling.n_shares, std::min(n_multiprocessors, kMaxBlocks));
            ASSERT_LE(static_cast<size_t>(tiles) * kTileWarps, kMaxArrivals);
            ASSERT_LE(
                static_cast<size_t>(tiles) * static_cast<size_t>(tiling.n_shares * tiling.rows) * kTileGroups * kGroup,
                most_share_floats(shape));
          }
}

// Room for a batch of the most rows is room for one of fewer.
TEST(Tiling, RoomForManyRowsIsRoomForFew) {
  for (const int32_t n_rows : {9, 100, 300})
    EXPECT_LE(most_share_floats({n_rows, 80, 32}), most_share_floats({n_rows + 1, 80, 32}));
}

// What TinyLlama's products get of an H100.
TEST(Tiling, FillsTheDevice) {
  const auto choose = [](int32_t n_rows, int32_t n_groups, int32_t n_stages) {
    return choose_tiling({n_rows, n_groups, n_stages}, 132);
  };
  const auto is = [](const Tiling& tiling, int32_t rows, int32_t n_shares) {
    return tiling.rows == rows && tiling.n_shares == n_shares;
  };
  EXPECT_TRUE(is(choose(32, 352, 32), 32, 3)) << "gate and up: 44 tiles";
  EXPECT_TRUE(is(choose(256, 352, 32), 96, 1)) << "3 times 44";
  EXPECT_TRUE(is(choose(2048, 352, 32), kTileRows, 1));
  EXPECT_TRUE(is(choose(2048, 80, 32), 96, 1)) << "q, k and v: two rounds of blocks either way";
  EXPECT_GT(choose(32, 64, 88).n_shares, 4) << "down: 8 tiles";
}

}  // namespace
}  // namespace llorch::cuda
