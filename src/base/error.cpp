#include "base/error.h"

#include <cstring>

namespace llorch::detail {

void check_failed(const char* file, int line, const char* condition, const std::string& message) {
  const char* source = std::strstr(file, "src/");  // the path inside the project, not of the build machine
  throw BugError(fmt::format("{}:{}: check failed: {}{}{}", source != nullptr ? source : file, line, condition,
                             message.empty() ? "" : ": ", message));
}

}  // namespace llorch::detail
