// Asio's coroutines, by the names used here.
#pragma once

#include <utility>  // Boost 1.74's awaitable.hpp uses std::exchange and does not say so

// Kept apart from the line above by clang-format's rules, since the order matters.
#include <boost/asio/awaitable.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/use_awaitable.hpp>

namespace llorch {

namespace asio = boost::asio;
using boost::system::error_code;

}  // namespace llorch
