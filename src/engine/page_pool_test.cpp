// Accounting of KV pages.
#include "engine/page_pool.h"

#include <gtest/gtest.h>

#include <random>
#include <set>

namespace llorch {
namespace {

TEST(PagePool, GivesEachPageOnceAndAllOrNone) {
  PagePool pool(5);
  std::vector<uint32_t> a, b;
  EXPECT_TRUE(pool.take(3, a));
  EXPECT_FALSE(pool.take(3, b));
  EXPECT_TRUE(b.empty());
  EXPECT_EQ(pool.n_free(), 2u);
  EXPECT_TRUE(pool.take(2, b));
  EXPECT_TRUE(pool.take(0, b));
  std::set<uint32_t> all(a.begin(), a.end());
  all.insert(b.begin(), b.end());
  EXPECT_EQ(all, (std::set<uint32_t>{0, 1, 2, 3, 4}));
  pool.give_back(a);
  EXPECT_TRUE(a.empty());
  EXPECT_EQ(pool.n_free(), 3u);
}

TEST(PagePool, RefusesDoubleFreeAndUnknownPages) {
  PagePool pool(4);
  std::vector<uint32_t> pages;
  ASSERT_TRUE(pool.take(2, pages));
  std::vector<uint32_t> copy = pages;
  pool.give_back(pages);
  EXPECT_THROW(pool.give_back(copy), BugError);
  std::vector<uint32_t> unknown{4};
  EXPECT_THROW(pool.give_back(unknown), BugError);
}

TEST(PagePool, LosesNothingInALongLife) {
  PagePool pool(37);
  std::mt19937 random(1);
  std::vector<std::vector<uint32_t>> tables(8);
  for (int i = 0; i < 10000; ++i) {
    auto& table = tables[random() % tables.size()];
    if (random() % 3 == 0)
      pool.give_back(table);
    else
      pool.take(static_cast<uint32_t>(random() % 5), table);
    std::set<uint32_t> used;
    size_t n_used = 0;
    for (const auto& t : tables) {
      used.insert(t.begin(), t.end());
      n_used += t.size();
    }
    ASSERT_EQ(used.size(), n_used);
    ASSERT_EQ(pool.n_free() + n_used, pool.n_total());
  }
}

}  // namespace
}  // namespace llorch
