// How many KV pages there will be.
#include "app/memory.h"

#include <gtest/gtest.h>

#include "app/commands.h"

namespace llorch {
namespace {

constexpr uint64_t kPage = 1000;  // bytes, of 64 positions

KvWish wish(uint64_t room) {
  KvWish out;
  out.page_bytes = kPage;
  out.page_size = 64;
  out.model_context = 2048;
  out.room_bytes = room;
  out.room = "half of the free memory is";
  out.remedy = "give more --kv-memory";
  return out;
}

TEST(KvBudget, TheDefaultIsEightThousandPositionsOrOneContext) {
  EXPECT_EQ(choose_kv_budget(wish(1 << 30)).n_pages, 8192u / 64);
  EXPECT_EQ(choose_kv_budget(wish(1 << 30)).context, 2048u);
  KvWish large = wish(1 << 30);
  large.model_context = 131072;
  EXPECT_EQ(choose_kv_budget(large).n_pages, 131072u / 64);
}

TEST(KvBudget, TheModelsContextIsBoundedByMemory) {
  const KvBudget budget = choose_kv_budget(wish(10 * kPage + 1));
  EXPECT_EQ(budget.context, 640u);
  EXPECT_EQ(budget.n_pages, 10u);
  EXPECT_THROW(choose_kv_budget(wish(kPage - 1)), InputError);
}

TEST(KvBudget, AnAskedContextFitsOrIsRefusedWithBothNumbers) {
  KvWish asked = wish(uint64_t{20} << 20);
  asked.page_bytes = 1 << 20;
  asked.context = 1000;  // 16 pages; 20 fit
  EXPECT_EQ(choose_kv_budget(asked).context, 1000u);
  EXPECT_EQ(choose_kv_budget(asked).n_pages, 20u);
  asked.kv_memory = 15 << 20;
  try {
    choose_kv_budget(asked);
    FAIL();
  } catch (const InputError& error) {
    EXPECT_NE(std::string(error.what()).find("16.0 MiB"), std::string::npos) << error.what();
    EXPECT_NE(std::string(error.what()).find("15.0 MiB"), std::string::npos) << error.what();
  }
}

TEST(KvBudget, RoomForManySequencesHoldsTheirContextsAndNoMore) {
  KvWish many = wish(1 << 30);
  many.n_sequences = 3;
  EXPECT_EQ(choose_kv_budget(many).n_pages, 3 * 2048u / 64);
  many.context = 65;  // a page and a position
  EXPECT_EQ(choose_kv_budget(many).n_pages, 6u);
  many.room_bytes = 5 * kPage;
  EXPECT_EQ(choose_kv_budget(many).n_pages, 5u);
  many.room_bytes = kPage;
  EXPECT_THROW(choose_kv_budget(many), InputError);
}

TEST(KvBudget, KvMemoryIsTakenWhole) {
  KvWish asked = wish(1 << 30);
  asked.kv_memory = 500 * kPage + 1;
  EXPECT_EQ(choose_kv_budget(asked).n_pages, 500u);
}

TEST(Memory, TheSystemHasSome) { EXPECT_GT(available_memory_bytes(), uint64_t{1} << 20); }

}  // namespace
}  // namespace llorch
