#include "base/error.h"

#include <fmt/ranges.h>

#include <cstring>
#include <new>

namespace llorch {

ErrorCode code_of(const std::exception& error, ErrorCode other) {
  if (const auto* coded = dynamic_cast<const CodedError*>(&error)) return coded->code();
  if (dynamic_cast<const Error*>(&error) != nullptr) return other;
  if (dynamic_cast<const std::bad_alloc*>(&error) != nullptr) return ErrorCode::kVramOom;
  return ErrorCode::kWorkerFault;
}

std::vector<std::string> cause_chain(const std::exception& error) {
  std::vector<std::string> chain = {error.what()};
  try {
    std::rethrow_if_nested(error);
  } catch (const std::exception& cause) {
    for (std::string& text : cause_chain(cause)) chain.push_back(std::move(text));
  } catch (...) {
    chain.emplace_back("an exception of unknown type");
  }
  return chain;
}

std::string with_causes(const std::exception& error) { return fmt::format("{}", fmt::join(cause_chain(error), ": ")); }

namespace detail {

void check_failed(const char* file, int line, const char* condition, const std::string& message) {
  const char* source = std::strstr(file, "src/");  // the path inside the project, not of the build machine
  throw BugError(fmt::format("{}:{}: check failed: {}{}{}", source != nullptr ? source : file, line, condition,
                             message.empty() ? "" : ": ", message));
}

}  // namespace detail
}  // namespace llorch
