// Exceptions of llorch: bad input (Error) and our own bugs (LLORCH_CHECK).
//
// Nothing below app/ prints or aborts: it throws one of these, and main (or the server, or the engine) turns it into
// an exit code, an HTTP status or an event.
#pragma once

#include <fmt/format.h>

#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "base/error_code.h"

namespace llorch {

// Bad input or a failed resource: a file, a flag, a device. what() is a complete sentence that names the file, the
// field or the step, and where it applies what was expected and what was got.
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// An Error whose code is known where it is thrown; others have the code of the place that catches them.
class CodedError : public Error {
 public:
  CodedError(ErrorCode code, const std::string& message) : Error(message), code_(code) {}
  ErrorCode code() const { return code_; }

 private:
  ErrorCode code_;
};

// A broken promise inside llorch itself. Checked in release builds too; what() carries file and line.
class BugError : public std::logic_error {
 public:
  using std::logic_error::logic_error;
};

// Throws Error with a formatted message.
template <typename... Args>
[[noreturn]] void fail(fmt::format_string<Args...> format, Args&&... args) {
  throw Error(fmt::format(format, std::forward<Args>(args)...));
}

// A CodedError's own code; `other` of any other Error; VRAM_OOM of std::bad_alloc; WORKER_FAULT, a bug, of the rest.
ErrorCode code_of(const std::exception& error, ErrorCode other);

// What an exception says, then what caused it (std::throw_with_nested), outermost first.
std::vector<std::string> cause_chain(const std::exception& error);

// The chain in one line: "outermost: next: innermost".
std::string with_causes(const std::exception& error);

namespace detail {
[[noreturn]] void check_failed(const char* file, int line, const char* condition, const std::string& message);
}  // namespace detail

}  // namespace llorch

// Release-mode assertion: LLORCH_CHECK(rows > 0, "{} rows", rows).
#define LLORCH_CHECK(condition, ...)                                                                 \
  do {                                                                                               \
    if (!(condition)) [[unlikely]]                                                                   \
      ::llorch::detail::check_failed(__FILE__, __LINE__, #condition, ::fmt::format("" __VA_ARGS__)); \
  } while (false)
