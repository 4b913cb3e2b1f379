// Causes of errors are kept, in order; every error has a code.
#include "base/error.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <new>
#include <stdexcept>

namespace llorch {
namespace {

template <typename Throw>
std::vector<std::string> chain_of(Throw thrower) {
  try {
    thrower();
  } catch (const std::exception& error) {
    return cause_chain(error);
  }
  return {};
}

TEST(CauseChain, IsOutermostFirst) {
  const auto inner = [] { fail("the {} is out of paper", "printer"); };
  const auto middle = [&] {
    try {
      inner();
    } catch (...) {
      std::throw_with_nested(BugError("no page came"));
    }
  };
  const auto outer = [&] {
    try {
      middle();
    } catch (...) {
      std::throw_with_nested(Error("the report is late"));
    }
  };
  EXPECT_THAT(chain_of(inner), testing::ElementsAre("the printer is out of paper"));
  EXPECT_THAT(chain_of(outer),
              testing::ElementsAre("the report is late", "no page came", "the printer is out of paper"));
}

TEST(CodeOf, IsTheErrorsOwnOrFollowsFromItsType) {
  const ErrorCode other = ErrorCode::kCommandFailed;
  EXPECT_EQ(code_of(CodedError(ErrorCode::kDeviceLost, "gone"), other), ErrorCode::kDeviceLost);
  EXPECT_EQ(code_of(Error("no such file"), other), other);
  EXPECT_EQ(code_of(std::bad_alloc(), other), ErrorCode::kVramOom);
  EXPECT_EQ(code_of(BugError("src/x.cpp:1"), other), ErrorCode::kWorkerFault);
  EXPECT_EQ(code_of(std::out_of_range("17"), other), ErrorCode::kWorkerFault);
}

TEST(CauseChain, KnowsCausesThatAreNoExceptions) {
  const auto odd = [] {
    try {
      throw 7;
    } catch (...) {
      std::throw_with_nested(Error("it broke"));
    }
  };
  EXPECT_THAT(chain_of(odd), testing::ElementsAre("it broke", "an exception of unknown type"));
  try {
    odd();
  } catch (const Error& error) {
    EXPECT_EQ(with_causes(error), "it broke: an exception of unknown type");
  }
}

}  // namespace
}  // namespace llorch
