// The faults that tests inject fire when they should, and only then.
#include "base/fault.h"

#include <gtest/gtest.h>

#include "base/error.h"

namespace llorch {
namespace {

#ifdef LLORCH_FAULTS

TEST(Fault, FiresTheNthTimeOnly) {
  FaultList list("launch:2");
  EXPECT_FALSE(list.fires("launch", "a"));
  EXPECT_FALSE(list.fires("hang", "a"));
  EXPECT_TRUE(list.fires("launch", "b"));
  EXPECT_FALSE(list.fires("launch", "c"));
}

TEST(Fault, CountsOnlyAtItsPlace) {
  FaultList list("hang:9,launch/layers.1.attn_out:1");
  EXPECT_FALSE(list.fires("launch", "layers.0.attn_out"));
  EXPECT_TRUE(list.fires("launch", "layers.1.attn_out"));
}

TEST(Fault, CountsOnlyWhileServingIfSaidSo) {
  FaultList list("launch@serving:1");
  EXPECT_FALSE(list.fires("launch", "a"));
  list.begin_serving();
  EXPECT_TRUE(list.fires("launch", "a"));
}

TEST(Fault, WhatIsNoListIsRefused) {
  for (const char* text :
       {"launch", "launch:", "launch:0", "launch:x", "launch:1x", ":1", "/a:1", "a:1,b", "a:1@serving"})
    EXPECT_THROW(FaultList{text}, Error) << text;
  EXPECT_FALSE(FaultList("").fires("launch", "a"));
}

#endif

}  // namespace
}  // namespace llorch
