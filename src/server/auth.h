// Who may talk to the worker: the bearer token, and where the worker may listen.
#pragma once

#include <boost/asio/ip/address.hpp>
#include <string>
#include <string_view>

namespace llorch {

inline constexpr size_t kMinTokenBytes = 16;

// Whether the Authorization header carries the token. Takes the same time wherever the two differ; true if the worker
// has no token.
bool is_authorized(std::string_view authorization_header, std::string_view token);

// The address of --host ("localhost" is 127.0.0.1). Throws Error if it is none, if it is not a loopback address and
// there is no token, or if there is a token shorter than kMinTokenBytes.
boost::asio::ip::address check_bind_address(const std::string& host, std::string_view token);

}  // namespace llorch
