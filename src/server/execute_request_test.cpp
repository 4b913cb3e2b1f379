// The rules of the body of POST /execute, one by one and all at once.
#include "server/execute_request.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

#include "base/error.h"
#include "server/strict_json.h"

namespace llorch {
namespace {

using nlohmann::json;

json minimal() { return {{"job_id", "a"}, {"prompt", "p"}, {"max_tokens", 1}}; }

// "field: constraint" of each error.
std::vector<std::string> refusals(const json& body) {
  const auto read = read_execute_request(body);
  std::vector<std::string> out;
  if (const auto* errors = std::get_if<1>(&read)) {
    for (const FieldError& error : *errors) out.push_back(error.field + ": " + error.constraint);
  }
  return out;
}

std::vector<std::string> refusals_with(const char* field, const json& value) {
  json body = minimal();
  body[field] = value;
  return refusals(body);
}

std::string times(int n, const char* text) {
  std::string out;
  for (int i = 0; i < n; ++i) out += text;
  return out;
}

TEST(ExecuteRequest, DefaultsAreThoseOfTheContract) {
  const auto read = read_execute_request(minimal());
  const auto& request = std::get<ExecuteRequest>(read);
  EXPECT_EQ(request.sampling.temperature, 1.0f);
  EXPECT_EQ(request.sampling.seed, 42u);
  EXPECT_EQ(request.sampling.top_p, 1.0f);
  EXPECT_EQ(request.sampling.top_k, 0u);
  EXPECT_EQ(request.sampling.min_p, 0.0f);
  EXPECT_EQ(request.sampling.repetition_penalty, 1.0f);
  EXPECT_TRUE(request.stop.empty());
  EXPECT_FALSE(request.ignore_eos);
  EXPECT_FALSE(request.record);
}

TEST(ExecuteRequest, EveryFieldIsRead) {
  const auto read = read_execute_request(json::parse(
      R"({"job_id":"j","prompt":"é","max_tokens":2048,"temperature":2,"seed":18446744073709551615,"top_p":0.5,
          "top_k":4294967295,"min_p":1.0,"repetition_penalty":1.5,"stop":["a","b"],"ignore_eos":true,"record":true})"));
  const auto& request = std::get<ExecuteRequest>(read);
  EXPECT_EQ(request.job_id, "j");
  EXPECT_EQ(request.prompt, "é");
  EXPECT_EQ(request.max_tokens, 2048u);
  EXPECT_EQ(request.sampling.temperature, 2.0f);
  EXPECT_EQ(request.sampling.seed, UINT64_MAX);
  EXPECT_EQ(request.sampling.top_p, 0.5f);
  EXPECT_EQ(request.sampling.top_k, UINT32_MAX);
  EXPECT_EQ(request.sampling.min_p, 1.0f);
  EXPECT_EQ(request.sampling.repetition_penalty, 1.5f);
  EXPECT_EQ(request.stop, (std::vector<std::string>{"a", "b"}));
  EXPECT_TRUE(request.ignore_eos);
  EXPECT_TRUE(request.record);
}

TEST(ExecuteRequest, EachRuleHasItsConstraint) {
  const struct {
    const char* field;
    json value;
    const char* refusal;  // nullptr: allowed
  } cases[] = {
      {"job_id", "", "job_id: non_empty"},
      {"job_id", 7, "job_id: type(string)"},
      {"job_id", times(256, "x"), nullptr},
      {"job_id", times(257, "x"), "job_id: max_length(256)"},
      {"ignore_eos", "yes", "ignore_eos: type(boolean)"},
      {"record", 1, "record: type(boolean)"},
      {"record", nullptr, "record: type(boolean)"},
      {"record", false, nullptr},
      {"prompt", "", "prompt: length(1..=32768)"},
      {"prompt", nullptr, "prompt: type(string)"},
      {"prompt", times(32768, "é"), nullptr},
      {"prompt", times(32769, "é"), "prompt: length(1..=32768)"},
      {"max_tokens", 0, "max_tokens: range(1..=2048)"},
      {"max_tokens", 2049, "max_tokens: range(1..=2048)"},
      {"max_tokens", -1, "max_tokens: range(1..=2048)"},
      {"max_tokens", 1.5, "max_tokens: type(integer)"},
      {"max_tokens", "5", "max_tokens: type(integer)"},
      {"temperature", 0, nullptr},
      {"temperature", 2.0, nullptr},
      {"temperature", -0.1, "temperature: range(0.0..=2.0)"},
      {"temperature", 2.0000001, "temperature: range(0.0..=2.0)"},
      {"temperature", 1e300, "temperature: range(0.0..=2.0)"},
      {"temperature", true, "temperature: type(number)"},
      {"seed", 0, nullptr},
      {"seed", -1, "seed: range(0..=18446744073709551615)"},
      {"seed", 1e20, "seed: type(integer)"},
      {"top_p", 0.0, nullptr},
      {"top_p", 1.1, "top_p: range(0.0..=1.0)"},
      {"top_k", 4294967296, "top_k: range(0..=4294967295)"},
      {"min_p", -1, "min_p: range(0.0..=1.0)"},
      {"repetition_penalty", 2.5, "repetition_penalty: range(0.0..=2.0)"},
      {"stop", "a", "stop: type(array)"},
      {"stop", json::array(), nullptr},
      {"stop", json{"a", "b", "c", "d"}, nullptr},
      {"stop", json{"a", "b", "c", "d", "e"}, "stop: max_count(4)"},
      {"stop", json::array({""}), "stop[0]: non_empty"},
      {"stop", json{"a", times(101, "x")}, "stop[1]: max_length(100)"},
      {"stop", json{"a", 1}, "stop[1]: type(string)"},
      {"best_of", 3, "best_of: known_field"},
  };
  for (const auto& c : cases) {
    const auto got = refusals_with(c.field, c.value);
    const std::string shown = fmt::format("{} = {}", c.field, c.value.dump().substr(0, 60));
    if (c.refusal == nullptr) {
      EXPECT_THAT(got, testing::IsEmpty()) << shown;
    } else {
      EXPECT_THAT(got, testing::ElementsAre(c.refusal)) << shown;
    }
  }
}

TEST(ExecuteRequest, AllViolationsAreNamedAtOnce) {
  const json body = {{"job_id", ""}, {"max_tokens", 0}, {"temperature", 3}, {"stop", json::array({""})}, {"x", 1}};
  EXPECT_THAT(refusals(body),
              testing::ElementsAre("job_id: non_empty", "prompt: required", "max_tokens: range(1..=2048)",
                                   "temperature: range(0.0..=2.0)", "stop[0]: non_empty", "x: known_field"));
}

TEST(ExecuteRequest, ABodyThatIsNoObjectIsRefused) {
  for (const char* body : {"[]", "1", "null", "\"x\""}) {
    EXPECT_THAT(refusals(json::parse(body)), testing::ElementsAre(": type(object)"));
  }
}

TEST(ExecuteRequest, TextIsNeverSentBack) {
  json body = minimal();
  body["prompt"] = std::vector<std::string>{"secret"};
  body["temperature"] = "secret";
  body["stop"] = {times(200, "secret")};
  const auto read = read_execute_request(body);
  const Problem problem = problem::invalid_fields(std::get<1>(read));
  EXPECT_EQ(problem.body().dump().find("secret"), std::string::npos);
  EXPECT_EQ(problem.body()["errors"].size(), 3u);
}

TEST(StrictJson, RefusesWhatIsNotOneValue) {
  for (const char* text : {"", "{", "{}{}", "{'a':1}", "{\"a\":NaN}", "{\"a\":1e999}", "nul", "{\"a\":1,}",
                           "\"\\ud800\"", "\"\xff\"", "\"\xc0\x80\"", "// x\n{}"}) {
    EXPECT_THROW(parse_strict_json(text), Error) << text;
  }
}

TEST(StrictJson, RefusesAKeyTwiceInOneObjectOnly) {
  EXPECT_THROW(parse_strict_json(R"({"a":1,"a":1})"), Error);
  EXPECT_THROW(parse_strict_json(R"([{"x":{"a":1,"\u0061":2}}])"), Error);
  EXPECT_EQ(parse_strict_json(R"({"a":{"a":1},"b":{"a":2}})")["b"]["a"], 2);
}

TEST(StrictJson, DepthIsLimited) {
  EXPECT_NO_THROW(parse_strict_json(times(kMaxJsonDepth, "[") + times(kMaxJsonDepth, "]")));
  EXPECT_THROW(parse_strict_json(times(kMaxJsonDepth + 1, "[") + times(kMaxJsonDepth + 1, "]")), Error);
  EXPECT_THROW(parse_strict_json(times(500000, "[")), Error);
  EXPECT_THROW(parse_strict_json(times(100000, "{\"a\":")), Error);
}

TEST(StrictJson, MessagesDoNotQuoteTheText) {
  try {
    parse_strict_json("{\"prompt\":\"secret\" secret}");
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(std::string(error.what()).find("secret"), std::string::npos) << error.what();
  }
}

// Whatever a body is turned into, it is read, or refused by an Error or by field errors.
TEST(StrictJson, MutatedBodiesAreReadOrRefused) {
  const std::string good = R"({"job_id":"é\u0041","prompt":"p\n","max_tokens":12,"temperature":0.5,"stop":["a","b"]})";
  std::mt19937 random(11);
  int read = 0;
  for (int round = 0; round < 20000; ++round) {
    std::string body = good;
    for (size_t n = 1 + random() % 3; n > 0; --n) {
      const size_t at = random() % body.size();
      switch (random() % 4) {
        case 0:
          body[at] = static_cast<char>(random());
          break;
        case 1:
          body.erase(at, 1 + random() % 4);
          break;
        case 2:
          body.insert(at, 1, "{}[]\",:\\0e-"[random() % 12]);
          break;
        case 3:
          body.insert(at, body.substr(random() % body.size(), 8));
          break;
      }
      if (body.empty()) body.push_back(' ');
    }
    try {
      read += std::holds_alternative<ExecuteRequest>(read_execute_request(parse_strict_json(body)));
    } catch (const Error&) {
    }
  }
  EXPECT_GT(read, 100) << "some mutations are harmless";
}

}  // namespace
}  // namespace llorch
