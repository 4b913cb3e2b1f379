// docs/errors.md shows the table of codes, all of it and nothing else.
#include "base/error_code.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <regex>
#include <string>
#include <vector>

namespace llorch {
namespace {

std::vector<std::string> lines_of_docs() {
  std::ifstream file(LLORCH_SOURCE_DIR "/docs/errors.md");
  std::vector<std::string> lines;
  for (std::string line; std::getline(file, line);) lines.push_back(line);
  return lines;
}

// The row of a code without its second cell, which says when it occurs.
std::string row_of(const ErrorInfo& info) {
  const auto or_dash = [](auto number) { return number == 0 ? std::string("-") : std::to_string(number); };
  return fmt::format("| `{}` | {} | {} | {} | {} |", info.name, or_dash(info.http), or_dash(info.exit),
                     info.retriable ? "yes" : "no", info.remedy);
}

TEST(ErrorCode, EveryCodeHasItsRowInTheDocs) {
  const std::regex code_and_when("^(\\| `[A-Z_]+` \\|) [^|]+ \\|(.*)$");
  std::vector<std::string> rows, wanted;
  bool in_table = false;
  for (const std::string& line : lines_of_docs()) {
    if (line.rfind("| code |", 0) == 0) in_table = true;
    if (line.empty()) in_table = false;
    std::smatch parts;
    if (in_table && std::regex_match(line, parts, code_and_when)) rows.push_back(parts[1].str() + parts[2].str());
  }
  for (const ErrorInfo& info : error_infos()) wanted.push_back(row_of(info));
  EXPECT_THAT(rows, testing::ElementsAreArray(wanted));
}

TEST(ErrorCode, NothingElseLooksLikeACode) {
  const std::regex code("`([A-Z]+_[A-Z_]+)`");
  std::vector<std::string> known = {"LLORCH_FAULT", "LLORCH_CHECK"};
  for (const ErrorInfo& info : error_infos()) known.emplace_back(info.name);
  for (const std::string& line : lines_of_docs())
    for (std::sregex_iterator it(line.begin(), line.end(), code), end; it != end; ++it)
      EXPECT_THAT(known, testing::Contains((*it)[1].str())) << line;
}

}  // namespace
}  // namespace llorch
