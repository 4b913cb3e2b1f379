#include "trace/cut.h"

#include <gtest/gtest.h>

#include "trace/excerpt.h"
#include "trace/tiny_model_for_test.h"

namespace llorch {
namespace {

class CutTest : public testing::Test {
 protected:
  const Plan plan_ = test::TinyModel{}.plan;
  const uint64_t row_ = work_of_row(plan_), short_row_ = work_of_row(first_layers(plan_, 1));
};

TEST_F(CutTest, WhatIsAffordableIsWhole) {
  const Cut cut = choose_cut(plan_, 100, row_ * 100);
  EXPECT_EQ(cut.n_layers, 2u);
  EXPECT_EQ(cut.n_positions, 100u);
  EXPECT_EQ(cut.n_whole_positions, 0u);
  EXPECT_EQ(to_text(cut), "all 2 layers at 100 positions");
}

TEST_F(CutTest, PositionsBeyondThe67thGoBeforeLayers) {
  const Cut cut = choose_cut(plan_, 100, row_ * 67);
  EXPECT_EQ(to_text(cut), "all 2 layers at 67 of 100 positions");
  EXPECT_EQ(choose_cut(plan_, 100, row_ * 67 - 1).n_layers, 1u);
}

TEST_F(CutTest, AShortSequenceIsKeptWholeAsLongAsItIsAffordable) {
  EXPECT_EQ(to_text(choose_cut(plan_, 9, row_ * 9)), "all 2 layers at 9 positions");
  EXPECT_EQ(to_text(choose_cut(plan_, 9, row_ * 9 - 1)), "the first 1 of 2 layers at 9 positions, all layers at 5");
}

TEST_F(CutTest, AllLayersHaveTwoPositionsOrNone) {
  EXPECT_EQ(choose_cut(plan_, 100, row_ * 3).n_whole_positions, 3u);
  EXPECT_EQ(choose_cut(plan_, 100, row_ * 2).n_whole_positions, 2u);
  EXPECT_EQ(choose_cut(plan_, 100, row_ * 2 - 1).n_whole_positions, 0u);
}

TEST_F(CutTest, HoweverLargeAModelFivePositionsOfALayerRemain) {
  const Cut cut = choose_cut(plan_, 100, 1);
  EXPECT_EQ(to_text(cut), "the first 1 of 2 layers at 5 of 100 positions");
  EXPECT_EQ(choose_cut(plan_, 3, 1).n_positions, 3u);
  EXPECT_EQ(choose_cut(plan_, 100, short_row_ * 8).n_positions, 8u);
}

}  // namespace
}  // namespace llorch
