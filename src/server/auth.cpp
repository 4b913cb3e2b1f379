// Constant-time comparison, and the rule that an open port needs a token.
#include "server/auth.h"

#include <boost/beast/core/string.hpp>

#include "base/error.h"

namespace llorch {
namespace {

// Its time depends on the length of `got` alone, which the sender knows.
bool equal_in_constant_time(std::string_view got, std::string_view expected) {
  unsigned difference = got.size() != expected.size();
  for (size_t i = 0; i < got.size(); ++i) {
    difference |= static_cast<unsigned char>(got[i]) ^ static_cast<unsigned char>(expected[i % expected.size()]);
  }
  volatile unsigned result = difference;  // keeps the loop from ending early
  return result == 0;
}

bool is_loopback(const boost::asio::ip::address& address) {
  if (address.is_v6() && address.to_v6().is_v4_mapped()) {
    return boost::asio::ip::make_address_v4(boost::asio::ip::v4_mapped, address.to_v6()).is_loopback();
  }
  return address.is_loopback();
}

}  // namespace

bool is_authorized(std::string_view authorization_header, std::string_view token) {
  if (token.empty()) return true;
  constexpr std::string_view kScheme = "Bearer ";
  if (authorization_header.size() < kScheme.size()) return false;
  const std::string_view scheme = authorization_header.substr(0, kScheme.size());
  if (!boost::beast::iequals({scheme.data(), scheme.size()}, {kScheme.data(), kScheme.size()})) return false;
  return equal_in_constant_time(authorization_header.substr(kScheme.size()), token);
}

boost::asio::ip::address check_bind_address(const std::string& host, std::string_view token) {
  boost::system::error_code error;
  auto address = boost::asio::ip::make_address(host == "localhost" ? "127.0.0.1" : host, error);
  if (error) fail("--host: expected an IP address, got \"{}\"", host);
  if (!token.empty() && token.size() < kMinTokenBytes) {
    fail("LLORCH_API_TOKEN: expected {} characters or more, got {}", kMinTokenBytes, token.size());
  }
  if (token.empty() && !is_loopback(address)) {
    fail("--host {}: not a loopback address, so LLORCH_API_TOKEN must be set ({} characters or more)", host,
         kMinTokenBytes);
  }
  return address;
}

}  // namespace llorch
