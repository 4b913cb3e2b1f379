// Which request goes where, and which goes nowhere.
#include "server/routes.h"

#include <gtest/gtest.h>

#include "server/correlation.h"

namespace llorch {
namespace {

constexpr const char* kToken = "0123456789abcdef";
constexpr const char* kBearer = "Bearer 0123456789abcdef";

unsigned status(RequestHead head, const char* token = "") {
  const auto found = find_route(head, token);
  const auto* problem = std::get_if<Problem>(&found);
  return problem != nullptr ? problem->status() : 200;
}

TEST(Routes, PathMethodAndContentTypeAreChecked) {
  EXPECT_EQ(status({"GET", "/health", "", ""}), 200u);
  EXPECT_EQ(status({"GET", "/health?x=1", "", ""}), 200u);
  EXPECT_EQ(status({"POST", "/health", "application/json", ""}), 405u);
  EXPECT_EQ(status({"GET", "/execute", "", ""}), 405u);
  EXPECT_EQ(status({"DELETE", "/cancel", "", ""}), 405u);
  EXPECT_EQ(status({"GET", "/", "", ""}), 404u);
  EXPECT_EQ(status({"POST", "/execute/", "application/json", ""}), 404u);
  EXPECT_EQ(status({"POST", "/execute", "application/json", ""}), 200u);
  EXPECT_EQ(status({"POST", "/cancel", "Application/JSON ; charset=utf-8", ""}), 200u);
  EXPECT_EQ(status({"POST", "/execute", "", ""}), 415u);
  EXPECT_EQ(status({"POST", "/execute", "text/plain", ""}), 415u);
  EXPECT_EQ(status({"POST", "/execute", "application/jsonx", ""}), 415u);
}

TEST(Routes, TheTokenGuardsAllButHealth) {
  EXPECT_EQ(status({"GET", "/health", "", ""}, kToken), 200u);
  EXPECT_EQ(status({"POST", "/execute", "application/json", ""}, kToken), 401u);
  EXPECT_EQ(status({"POST", "/execute", "text/plain", "Bearer x"}, kToken), 401u);
  EXPECT_EQ(status({"POST", "/cancel", "application/json", kBearer}, kToken), 200u);
}

TEST(Routes, ProblemsHaveTheContractsForm) {
  const auto found = find_route({"GET", "/execute", "", ""}, "");
  const Problem& problem = std::get<Problem>(found);
  EXPECT_EQ(problem.allow, "POST");
  const auto body = problem.body();
  EXPECT_EQ(body.size(), 3u);
  EXPECT_TRUE(body["code"].is_string() && body["message"].is_string() && body["retriable"] == false);
}

TEST(Correlation, GoodIdsAreKeptAndOthersReplaced) {
  EXPECT_EQ(correlation_id("abc-123"), "abc-123");
  for (const std::string& bad :
       {std::string(), std::string("a b"), std::string("a\r\nb"), std::string("\xc3\xa9"), std::string(129, 'x')}) {
    const std::string id = correlation_id(bad);
    EXPECT_EQ(id.size(), 36u);
    EXPECT_EQ(id[14], '4');
    EXPECT_NE(id, correlation_id(bad));
  }
}

}  // namespace
}  // namespace llorch
