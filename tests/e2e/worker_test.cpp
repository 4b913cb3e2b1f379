// The contract of the worker, as its clients see it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <csignal>
#include <cstdlib>

#include "worker_for_test.h"

namespace llorch {
namespace {

using nlohmann::json;
using testing::HasSubstr;

// Tests that ask for nothing special share one worker.
class WorkerTest : public testing::Test {
 protected:
  static void SetUpTestSuite() { worker_ = new Worker; }
  static void TearDownTestSuite() {
    EXPECT_TRUE(soon([] { return worker_->idle(); })) << worker_->health();
    delete worker_;
  }
  uint16_t port() { return worker_->http(); }
  std::vector<json> run(const json& body) { return execute(port(), body); }

  static Worker* worker_;
};
Worker* WorkerTest::worker_ = nullptr;

TEST_F(WorkerTest, HealthSaysWhatRuns) {
  const json health = worker_->health();
  EXPECT_EQ(health["status"], "healthy");
  EXPECT_EQ(health["backend"], "cpu");
  EXPECT_EQ(health["numerics"], "exact");
  EXPECT_THAT(health["model"].get<std::string>(), HasSubstr("tiny"));
  EXPECT_GT(health["vram_bytes"], 200000);
  EXPECT_EQ(health["kv_pages_free"], health["kv_pages_total"]) << "the warm-up gave its pages back";
  for (const char* field : {"device", "version", "running", "waiting"}) EXPECT_TRUE(health.contains(field)) << field;
}

TEST_F(WorkerTest, AStoryHasItsEventsInOrder) {
  const auto events = run(job("story", 20));
  const auto types = types_of(events);
  ASSERT_GE(types.size(), 3u);
  EXPECT_EQ(types.front(), "started");
  EXPECT_EQ(std::count(types.begin(), types.end(), "token"), 20);
  EXPECT_EQ(types[types.size() - 2], "metrics");
  EXPECT_EQ(types.back(), "end");
  EXPECT_EQ(events.back()["tokens_out"], 20);
  EXPECT_EQ(events.back()["stop_reason"], "MAX_TOKENS");
  EXPECT_NE(text_of(events), "");
}

TEST_F(WorkerTest, EosEndsAStream) {
  const auto events = run(job("eos", 20, "this ends in Z"));  // see fixtures/tiny/make.py
  EXPECT_THAT(types_of(events), testing::ElementsAre("started", "end"));
  ASSERT_FALSE(events.empty());
  EXPECT_EQ(events.back()["stop_reason"], "EOS");
  EXPECT_EQ(events.back()["tokens_out"], 0);
}

TEST_F(WorkerTest, SeedsDecide) {
  json body = job("seed", 30);
  body["seed"] = 7;
  const auto first = ids_of(run(body));
  EXPECT_EQ(ids_of(run(body)), first);
  body["seed"] = 8;
  EXPECT_NE(ids_of(run(body)), first);
  body["temperature"] = 0;
  const auto greedy = ids_of(run(body));
  body["seed"] = 9;
  EXPECT_EQ(ids_of(run(body)), greedy);
  body["temperature"] = 2.0;
  body["top_k"] = 1;
  EXPECT_EQ(ids_of(run(body)), greedy);
}

TEST_F(WorkerTest, StopStringsMatchAcrossTokens) {
  json body = job("stop", 40);
  const auto events = run(body);
  ASSERT_GE(events.size(), 40u);
  const std::string whole = text_of(events);
  const std::string a = events[6]["t"], b = events[7]["t"];
  const std::string stop = a.substr(a.size() - 1) + b.substr(0, 1);
  body["stop"] = {"not in this text at all", stop};
  const auto stopped = run(body);
  ASSERT_FALSE(stopped.empty());
  EXPECT_EQ(text_of(stopped), whole.substr(0, whole.find(stop)));
  EXPECT_EQ(stopped.back()["stop_reason"], "STOP_SEQUENCE");
  EXPECT_EQ(stopped.back()["stop_sequence_matched"], stop);
  EXPECT_LE(stopped.back()["tokens_out"], 7);
}

TEST_F(WorkerTest, TextIsWholeCharacters) {
  for (const auto& event : run(job("utf8", 100, "café 🙂 déjà vu"))) {
    EXPECT_TRUE(json::accept(event.dump()));  // dump() throws on half a character
  }
}

TEST_F(WorkerTest, BadFieldsAreNamedAllAtOnceWithoutThePrompt) {
  const TestAnswer answer =
      ask(port(), "POST", "/execute",
          R"({"job_id":"","prompt":"very secret","max_tokens":0,"temperature":9,"stop":["a","b","c","d","e"],"n":2})");
  EXPECT_EQ(answer.status, 400);
  EXPECT_THAT(answer.body, testing::Not(HasSubstr("secret")));
  std::vector<std::string> constraints;
  const json body = answer.json();
  for (const json& error : body["errors"]) constraints.push_back(error["constraint"]);
  EXPECT_THAT(constraints,
              testing::ElementsAre("non_empty", "range(1..=2048)", "range(0.0..=2.0)", "max_count(4)", "known_field"));
}

TEST_F(WorkerTest, WhatDoesNotFitTheContextIsRefusedWithBothCounts) {
  const TestAnswer answer = ask(port(), "POST", "/execute", job("long", 1020, "the fox and the owl").dump());
  EXPECT_EQ(answer.status, 400);
  EXPECT_THAT(answer.body, testing::AllOf(HasSubstr("1020"), HasSubstr("1024")));
}

TEST_F(WorkerTest, CancelOfAnythingIsAccepted) {
  EXPECT_EQ(ask(port(), "POST", "/cancel", R"({"job_id":"never seen"})").status, 202);
}

TEST_F(WorkerTest, ASlowReaderStallsNobody) {
  TestClient slow(port(), 1024);
  slow.request("POST", "/execute", job("slow", 900).dump());
  for (int i = 0; i < 3; ++i) EXPECT_EQ(execute_to_end(port(), job(fmt::format("quick{}", i), 50))["tokens_out"], 50);
  EXPECT_TRUE(soon([&] { return worker_->idle(); })) << "its pages are back before it has read anything";
  EXPECT_EQ(slow.read_head().status, 200);
  EXPECT_EQ(slow.last_event()["tokens_out"], 900);
}

// The seed's case: what ran before, the warm-up included, must not be seen by what comes after.
TEST_F(WorkerTest, AFirstRequestEqualsALaterOneAndOneOfAFreshProcess) {
  const json five = job("five", 40, "the owl said");
  const auto in_use = ids_of(run(five));
  run(job("other", 60, "One day the fox went to the sea, and the sun came"));
  EXPECT_EQ(ids_of(run(five)), in_use);
  Worker fresh;
  EXPECT_EQ(ids_of(execute(fresh.http(), five)), in_use);
  Worker scalar({"--backend", "reference"});
  EXPECT_EQ(ids_of(execute(scalar.http(), five)), in_use) << "the reference backend gives the same bits";
}

TEST(WorkerLife, CancelEndsARunningJob) {
  Worker worker({"--backend", "reference"});
  TestClient client(worker.http());
  client.request("POST", "/execute", job("long", 900).dump());
  client.read_head();
  ASSERT_TRUE(client.next_event());
  EXPECT_EQ(ask(worker.http(), "POST", "/cancel", R"({"job_id":"long"})").status, 202);
  const json end = client.last_event();
  EXPECT_EQ(end["stop_reason"], "CANCELLED");
  EXPECT_LT(end["tokens_out"], 900);
  EXPECT_TRUE(soon([&] { return worker.idle(); }));
}

TEST(WorkerLife, ADisconnectCancels) {
  Worker worker({"--backend", "reference"});
  for (const int events_read : {0, 1, 3}) {
    TestClient client(worker.http());
    client.request("POST", "/execute", job("gone", 900).dump());
    if (events_read > 0) client.read_head();
    for (int i = 0; i < events_read; ++i) client.next_event();
    client.close();
    EXPECT_TRUE(soon([&] { return worker.idle(); }));
  }
  EXPECT_TRUE(soon([&] { return worker.last_log_lines().find("the client is gone") != std::string::npos; }))
      << worker.last_log_lines();
}

TEST(WorkerLife, ARequestTimeoutIsAnError) {
  Worker worker({"--backend", "reference", "--request-timeout", "0.05"});
  const auto events = execute(worker.http(), job("late", 900));
  ASSERT_FALSE(events.empty());
  EXPECT_EQ(events.back()["type"], "error");
  EXPECT_EQ(events.back()["code"], "TIMEOUT");
}

TEST(WorkerLife, SigtermLetsJobsEndAndExitsWithZero) {
  Worker worker;
  std::vector<std::unique_ptr<TestClient>> clients;
  for (int i = 0; i < 8; ++i) {
    clients.push_back(std::make_unique<TestClient>(worker.http()));
    clients.back()->request("POST", "/execute", job(fmt::format("j{}", i), 400).dump());
    EXPECT_EQ(clients.back()->read_head().status, 200);
  }
  worker.send_signal(SIGTERM);
  for (const auto& client : clients) EXPECT_EQ(client->last_event()["tokens_out"], 400);
  EXPECT_EQ(worker.wait(), 0);
  EXPECT_THAT(worker.last_log_lines(), HasSubstr("worker stopped"));
}

TEST(WorkerLife, ASecondSignalEndsItAtOnce) {
  Worker worker({"--backend", "reference"});
  TestClient client(worker.http());
  client.request("POST", "/execute", job("long", 900).dump());
  client.read_head();
  worker.send_signal(SIGINT);
  ASSERT_TRUE(soon([&] { return worker.last_log_lines().find("draining") != std::string::npos; }));
  worker.send_signal(SIGINT);
  EXPECT_NE(worker.wait(), 0);
}

TEST(WorkerLife, TheTokenOfTheEnvironmentIsAsked) {
  ::setenv("LLORCH_API_TOKEN", "a token of 24 characters", 1);
  Worker worker({"--host", "0.0.0.0"});
  ::unsetenv("LLORCH_API_TOKEN");
  EXPECT_EQ(ask(worker.http(), "GET", "/health").status, 200);
  EXPECT_EQ(ask(worker.http(), "POST", "/execute", job("j", 1).dump()).status, 401);
  EXPECT_EQ(ask(worker.http(), "POST", "/execute", job("j", 1).dump(),
                "Content-Type: application/json\r\nAuthorization: Bearer a token of 24 characters\r\n")
                .status,
            200);
}

TEST(WorkerLife, AnOpenPortWithoutATokenIsRefusedAtStart) {
  Worker worker({"--host", "0.0.0.0"});
  EXPECT_EQ(worker.wait(), 2);
}

TEST(WorkerLife, AnAbsentBackendIsRefusedAtStart) {
  for (const char* backend : {"cuda", "metal"}) {
    Worker worker({"--backend", backend, "--device", "99"});
    EXPECT_EQ(worker.wait(), 2) << backend;
  }
}

TEST(WorkerLife, TheSelfTestCanBeLeftOut) {
  Worker worker({"--self-test", "off"});
  EXPECT_GT(worker.http(), 0);
  EXPECT_THAT(worker.last_log_lines(), HasSubstr("self-test skipped"));
  EXPECT_EQ(Worker({"--self-test", "perhaps"}).wait(), 2);
}

TEST(WorkerLife, TheStartIsLoggedInTheContractsOrder) {
  const std::string file = testing::TempDir() + "/llorch_e2e_start.log";
  {
    WorkerProcess worker(LLORCH_EXECUTABLE,
                         {"--port", "0", "--model", kTinyModel, "--worker-id", "w1", "--self-test", "on"}, file);
    ASSERT_TRUE(soon([&] { return worker.port().has_value(); })) << worker.last_log_lines();
  }
  std::vector<std::string> messages;
  std::map<std::string, json> fields;
  std::ifstream lines(file);
  for (std::string line; std::getline(lines, line);) {
    const json entry = json::parse(line);
    EXPECT_TRUE(entry.contains("timestamp") && entry.contains("level")) << line;
    messages.push_back(entry["fields"]["message"]);
    fields[messages.back()] = entry["fields"];
  }
  EXPECT_THAT(messages, testing::ElementsAre("worker starting", "flight recorder ready", "device ready",
                                             "model verified", "model loaded", "self-test passed",
                                             "GPU warmup complete", "CPU warmup complete - ready for inference",
                                             "HTTP server listening", "draining", "worker stopped"));
  EXPECT_TRUE(fields["self-test passed"]["duration_ms"].is_number());
  EXPECT_EQ(fields["self-test passed"]["same_logits_after"].size(), 6u);
  EXPECT_TRUE(fields["device ready"]["context_ms"].is_number());
  for (const char* name : {"load_ms", "load_gb_per_s", "weight_bytes", "duration_ms"})
    EXPECT_TRUE(fields["model loaded"][name].is_number()) << name;
  EXPECT_TRUE(fields["GPU warmup complete"]["duration_ms"].is_number());
  EXPECT_THAT(fields["HTTP server listening"]["addr"].get<std::string>(), HasSubstr("127.0.0.1:"));
  const json& model = fields["model verified"];
  EXPECT_EQ(model["architecture"], "llama");
  EXPECT_EQ(model["dtype"], "bf16");
  EXPECT_EQ(model["hidden_size"], 64);
  EXPECT_EQ(model["layers"], 2);
  EXPECT_EQ(model["vocabulary"], 304);
}

}  // namespace
}  // namespace llorch
