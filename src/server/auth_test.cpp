// Tokens and bind addresses.
#include "server/auth.h"

#include <gtest/gtest.h>

#include "base/error.h"

namespace llorch {
namespace {

constexpr const char* kToken = "0123456789abcdef";

TEST(Auth, OnlyTheExactTokenPasses) {
  EXPECT_TRUE(is_authorized("Bearer 0123456789abcdef", kToken));
  EXPECT_TRUE(is_authorized("bearer 0123456789abcdef", kToken));
  for (const char* wrong : {"", "Bearer", "Bearer ", "Bearer 0123456789abcdeF", "Bearer 0123456789abcde",
                            "Bearer 0123456789abcdef0", "Bearer 0123456789abcdef0123456789abcdef",
                            "Basic 0123456789abcdef", "0123456789abcdef", "Bearer  0123456789abcdef"}) {
    EXPECT_FALSE(is_authorized(wrong, kToken)) << wrong;
  }
}

TEST(Auth, WithoutATokenEverybodyPasses) { EXPECT_TRUE(is_authorized("", "")); }

TEST(Auth, LoopbackNeedsNoToken) {
  for (const char* host : {"127.0.0.1", "127.8.8.8", "::1", "localhost", "::ffff:127.0.0.1"}) {
    EXPECT_NO_THROW(check_bind_address(host, "")) << host;
  }
}

TEST(Auth, OtherAddressesNeedALongToken) {
  for (const char* host : {"0.0.0.0", "::", "192.168.0.7", "::ffff:10.0.0.1"}) {
    EXPECT_THROW(check_bind_address(host, ""), Error) << host;
    EXPECT_THROW(check_bind_address(host, "short"), Error) << host;
    EXPECT_NO_THROW(check_bind_address(host, kToken)) << host;
  }
  EXPECT_THROW(check_bind_address("127.0.0.1", "short"), Error);
  EXPECT_THROW(check_bind_address("not an address", kToken), Error);
}

}  // namespace
}  // namespace llorch
