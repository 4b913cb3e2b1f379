// The load program's parts: what counts as a right answer, percentiles, prompts of an exact length, addresses.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "app/commands.h"
#include "app/http_load_answer.h"
#include "app/http_load_client.h"
#include "app/http_load_prompts.h"
#include "app/http_load_report.h"
#include "format/checkpoint.h"

namespace llorch {
namespace {

using std::chrono::milliseconds;
using testing::HasSubstr;

const LoadRequest kRequest{"the fox", 4, 3, 0.8, 7};
const std::string kStarted =
    R"(data: {"type":"started","job_id":"j","model":"m","prompt_tokens":4,"backend":"cpu","numerics":"exact"})"
    "\n\n";
const std::string kEnd = "data: {\"type\":\"end\",\"tokens_out\":3,\"stop_reason\":\"MAX_TOKENS\"}\n\n";

std::string token(int index, int id) {
  return fmt::format("data: {{\"type\":\"token\",\"t\":\"x\",\"i\":{},\"id\":{}}}\n\n", index, id);
}

const std::string kTokens = token(0, 5) + token(1, 6) + token(2, 5);

// What is wrong with a whole answer; empty if nothing is.
std::string fault_of(const std::string& text) {
  AnswerReader reader(kRequest, LoadClock::now());
  try {
    reader.push(text, LoadClock::now());
    reader.finish();
  } catch (const Error& error) {
    return error.what();
  }
  return {};
}

TEST(AnswerReader, TokensAndTheirTimesAreTaken) {
  const LoadClock::time_point begin = LoadClock::now();
  AnswerReader reader(kRequest, begin);
  reader.push(kStarted, begin + milliseconds(5));
  reader.push(token(0, 5) + "data: {\"type\":\"metrics\",\"tokens_per_sec\":1}\n\n", begin + milliseconds(20));
  reader.push(token(1, 6) + token(2, 5), begin + milliseconds(50));
  reader.push(kEnd, begin + milliseconds(60));
  const LoadAnswer answer = reader.finish();
  EXPECT_EQ(answer.ids, (std::vector<int32_t>{5, 6, 5}));
  EXPECT_DOUBLE_EQ(answer.ttft_ms, 20);
  EXPECT_DOUBLE_EQ(answer.decode_ms, 30);
  EXPECT_EQ(answer.gaps_ms, (std::vector<float>{30, 0}));
  EXPECT_EQ(answer.numerics, "exact");
}

TEST(AnswerReader, OtherSpellingsOfATokenAreTokensToo) {
  const std::string other = "data: {\"id\":6, \"i\":1, \"t\":\"\", \"type\":\"token\"}\r\n\r\n";
  EXPECT_EQ(fault_of(kStarted + token(0, 5) + other + token(2, 5) + kEnd), "");
  EXPECT_EQ(fault_of(kStarted + kTokens + token(2, 5) + kEnd), "") << "text that had waited comes with the last token";
}

TEST(AnswerReader, WhatIsWrongIsNamed) {
  EXPECT_EQ(fault_of(kStarted + kTokens + kEnd), "");
  EXPECT_THAT(fault_of(kTokens + kEnd), HasSubstr("before `started`"));
  EXPECT_THAT(fault_of(kStarted + token(0, 5) + token(2, 5)), HasSubstr("token 2 comes where token 1 should"));
  EXPECT_THAT(fault_of(kStarted + token(0, 5) + token(0, 6)), HasSubstr("token 0 comes where token 1 should"));
  EXPECT_THAT(fault_of(kStarted + kTokens), HasSubstr("broke off after 3 tokens"));
  EXPECT_THAT(fault_of(kStarted + token(0, 5) + kEnd), HasSubstr("the end counts 3 tokens, 1 came"));
  EXPECT_THAT(fault_of(kStarted + kTokens + kEnd + token(3, 5)), HasSubstr("after the end"));
  EXPECT_THAT(fault_of(kStarted + token(0, 5) + R"(data: {"type":"end","tokens_out":1,"stop_reason":"EOS"})" + "\n\n"),
              HasSubstr("the end is EOS after 1 tokens"));
  EXPECT_THAT(fault_of(kStarted + "data: {\"type\":\"error\",\"code\":\"TIMEOUT\",\"message\":\"late\"}\n\n"),
              HasSubstr("TIMEOUT: late"));
  EXPECT_THAT(fault_of("data: {\"type\":\"started\",\"model\":\"m\",\"prompt_tokens\":9}\n\n"),
              HasSubstr("9 tokens for the worker and 4 for us"));
  for (const char* odd : {"data: {\"type\":\"started\"}\n\n", "data: {\"type\":7}\n\n", "data: []\n\n", "data: x\n\n",
                          "data: {\"type\":\"started\",\"prompt_tokens\":\"4\"}\n\n"})
    EXPECT_NE(fault_of(odd), "") << odd;
  EXPECT_NE(fault_of(kStarted + "data: {\"type\":\"token\",\"i\":0}\n\n"), "");
  EXPECT_NE(fault_of(kStarted + kTokens + "data: {\"type\":\"end\"}\n\n"), "");
}

TEST(LoadReport, PercentilesAreNearestRanks) {
  std::vector<float> values;
  EXPECT_EQ(percentile(values, 0.5), 0);
  values = {3};
  EXPECT_EQ(percentile(values, 0.99), 3);
  for (int i = 100; i > 0; --i) values.push_back(static_cast<float>(i));
  values.erase(values.begin());
  EXPECT_EQ(percentile(values, 0.5), 50);
  EXPECT_EQ(percentile(values, 0.9), 90);
  EXPECT_EQ(percentile(values, 0.99), 99);
  EXPECT_EQ(percentile(values, 1.0), 100);
  EXPECT_EQ(percentile(values, 0.0), 1);
}

TEST(LoadReport, FailedRequestsAreCountedAndLeftOut) {
  LoadRun run;
  run.seconds = 2;
  for (const double ttft : {10.0, 30.0, 20.0}) {
    LoadAnswer answer;
    answer.ids = {1, 2, 3};
    answer.ttft_ms = ttft;
    answer.decode_ms = 4;
    answer.gaps_ms = {1, 3};
    run.answers.push_back(answer);
  }
  run.answers.emplace_back().error = "first";
  run.answers.emplace_back().error = "second";
  const LoadSummary summary = summarize(run, 2);
  EXPECT_EQ(summary.requests, 5u);
  EXPECT_EQ(summary.errors, 2u);
  EXPECT_EQ(summary.first_error, "first");
  EXPECT_EQ(summary.tokens, 9u);
  EXPECT_DOUBLE_EQ(summary.tokens_per_s, 4.5);
  EXPECT_DOUBLE_EQ(summary.ttft_median_ms, 20);
  EXPECT_DOUBLE_EQ(summary.ttft_p90_ms, 30);
  EXPECT_DOUBLE_EQ(summary.gap_median_ms, 1);
  EXPECT_DOUBLE_EQ(summary.gap_p99_ms, 3);
  EXPECT_DOUBLE_EQ(summary.request_tokens_per_s, 500);
  EXPECT_EQ(to_json(summary)["ttft_ms"]["p90"], 30);
}

TEST(LoadPrompts, HaveExactlySoManyTokensAndDiffer) {
  for (const char* folder : {"/tests/fixtures/tiny-llama", "/models/story-7m"}) {
    const auto tokenizer = Tokenizer::load(Checkpoint::open(std::string(LLORCH_SOURCE_DIR) + folder));
    for (const size_t n : {2, 3, 17, 128, 700}) {
      const auto prompts = make_prompts(*tokenizer, 20, n, 5);
      for (const std::string& prompt : prompts) ASSERT_EQ(tokenizer->encode(prompt, true).size(), n) << folder;
      EXPECT_EQ(prompts, make_prompts(*tokenizer, 20, n, 5));
      EXPECT_GE(std::set<std::string>(prompts.begin(), prompts.end()).size(), n > 2 ? 20u : 2u);
    }
    EXPECT_THROW(make_prompts(*tokenizer, 1, 1, 5), InputError) << "BOS is one, and a prompt is not empty";
  }
}

TEST(LoadUrl, HasAHostAndPerhapsAPort) {
  EXPECT_EQ(parse_load_url("http://127.0.0.1:9876").host, "127.0.0.1");
  EXPECT_EQ(parse_load_url("http://127.0.0.1:9876/").port, 9876);
  EXPECT_EQ(parse_load_url("http://gpu.example").port, 80);
  EXPECT_EQ(parse_load_url("http://[::1]:81").host, "::1");
  EXPECT_EQ(parse_load_url("http://[::1]:81").port, 81);
  EXPECT_EQ(parse_load_url("http://[::1]").port, 80);
  for (const char* bad : {"", "127.0.0.1:9876", "https://x", "http://", "http://x:", "http://x:0", "http://x:65536",
                          "http://x:1a", "http://x/execute", "http://u@x", "http://a b"})
    EXPECT_THROW(parse_load_url(bad), InputError) << bad;
}

}  // namespace
}  // namespace llorch
