// The server over real sockets, before an engine whose program is a toy: protocol, limits, cancel, drain.
#include "server/server.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>
#include <sstream>
#include <thread>

#include "server/server_for_test.h"

namespace llorch {
namespace {

using nlohmann::json;
using std::chrono::milliseconds;
using test::body;
using ServerTest = test::ServerTest;

TEST_F(ServerTest, AStreamHasTheContractsEventsAndTheConnectionLivesOn) {
  start();
  TestClient client(port_);
  for (int round = 0; round < 2; ++round) {
    client.request("POST", "/execute", body("j", 5).dump());
    const TestAnswer head = client.read_head();
    EXPECT_EQ(head.status, 200);
    EXPECT_EQ(head.headers.at("content-type"), "text/event-stream");
    const auto events = client.all_events();
    ASSERT_EQ(events.size(), 8u);
    EXPECT_EQ(events[0]["type"], "started");
    for (size_t i = 1; i <= 5; ++i) EXPECT_EQ(events[i]["i"], i - 1);
    EXPECT_EQ(events[6]["type"], "metrics");
    EXPECT_EQ(events[7]["stop_reason"], "MAX_TOKENS");
    EXPECT_EQ(events[7]["tokens_out"], 5);
  }
}

TEST_F(ServerTest, ARequestIsRecordedIfItAsksForItAndThereIsARecorder) {
  json asking = body("j", 2);
  asking["record"] = true;
  start();
  const TestAnswer refused = ask(port_, "POST", "/execute", asking.dump());
  EXPECT_EQ(refused.status, 400);
  EXPECT_EQ(refused.json()["errors"][0]["field"], "record");
  EXPECT_EQ(refused.json()["errors"][0]["constraint"], "recorder");
  EXPECT_EQ(refused.json()["errors"][0]["message"], "this worker has no flight recorder");
  TearDown();
  options_.records = true;
  start();
  EXPECT_EQ(execute_to_end(port_, body("silent", 2))["tokens_out"], 2);
  EXPECT_EQ(recorded_, 0u);
  EXPECT_EQ(execute_to_end(port_, asking)["tokens_out"], 2);
  EXPECT_EQ(recorded_, 2u);
  TearDown();
  EXPECT_THAT(logged_.str(), testing::HasSubstr("\"request\":2")) << "the log's last line of a job names its bundle";
}

TEST_F(ServerTest, EosEndsARequestUnlessItIsIgnored) {
  for (int32_t id = 0; id < 304; ++id) eos_.push_back(id);
  start();
  json ignoring = body("j", 3);
  const json ended = execute_to_end(port_, ignoring);
  EXPECT_EQ(ended["stop_reason"], "EOS");
  EXPECT_EQ(ended["tokens_out"], 0);
  ignoring["ignore_eos"] = true;
  const json full = execute_to_end(port_, ignoring);
  EXPECT_EQ(full["stop_reason"], "MAX_TOKENS");
  EXPECT_EQ(full["tokens_out"], 3);
}

TEST_F(ServerTest, PipelinedRequestsAreAnsweredInOrder) {
  start();
  TestClient client(port_);
  client.request("POST", "/execute", body("a", 20).dump());
  client.request("GET", "/health");
  client.request("POST", "/execute", body("b", 3).dump());
  EXPECT_EQ(client.read_head().status, 200);
  EXPECT_EQ(client.last_event()["tokens_out"], 20);
  EXPECT_EQ(client.read_answer().json()["status"], "healthy");
  EXPECT_EQ(client.read_head().status, 200);
  EXPECT_EQ(client.last_event()["tokens_out"], 3);
}

TEST_F(ServerTest, ByteByByteIsAsGoodAsAtOnce) {
  start();
  const std::string text = body("j", 2).dump();
  TestClient client(port_);
  const std::string request =
      fmt::format("POST /execute HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{}",
                  text.size(), text);
  for (char c : request) client.send({&c, 1});
  EXPECT_EQ(client.read_head().status, 200);
  EXPECT_EQ(client.last_event()["tokens_out"], 2);
}

TEST_F(ServerTest, RefusalsHaveTheirStatusAndAJsonBody) {
  start();
  const auto status = [&](std::string_view method, std::string_view path, std::string_view text,
                          std::string_view headers = "Content-Type: application/json\r\n") {
    const TestAnswer answer = ask(port_, method, path, text, headers);
    EXPECT_TRUE(json::accept(answer.body)) << path << answer.body;
    EXPECT_EQ(answer.headers.at("content-type"), "application/json");
    return answer.status;
  };
  EXPECT_EQ(status("GET", "/nothing", ""), 404);
  EXPECT_EQ(status("PUT", "/execute", "{}"), 405);
  EXPECT_EQ(status("POST", "/execute", "{}", "Content-Type: text/plain\r\n"), 415);
  EXPECT_EQ(status("POST", "/execute", "not json"), 400);
  EXPECT_EQ(status("POST", "/execute", "{}"), 400);
  EXPECT_EQ(status("POST", "/cancel", "{}"), 400);
  EXPECT_EQ(status("POST", "/cancel", R"({"job_id":"unknown"})"), 202);
  EXPECT_EQ(status("POST", "/execute", std::string((1 << 20) + 1, ' ')), 413);
  EXPECT_EQ(status("GET", "/health", "", "X-Long: " + std::string(20000, 'x') + "\r\n"), 431);
  TestClient noise(port_);
  noise.send("\x16\x03\x01 what is this\r\n\r\n");
  EXPECT_EQ(noise.read_answer().status, 400);
  EXPECT_EQ(health()["status"], "healthy");
}

TEST_F(ServerTest, MutatedRequestsBreakNothing) {
  options_.idle_timeout = options_.body_timeout = milliseconds(50);  // many of them wait for bytes that never come
  start();
  const std::string text = body("m", 3).dump();
  const std::string good =
      fmt::format("POST /execute HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{}",
                  text.size(), text);
  std::mt19937 random(5);
  for (int round = 0; round < 300; ++round) {
    std::string request = good;
    for (int n = 0; n < 3; ++n) {
      const size_t at = random() % request.size();
      if (random() % 2 == 0) {
        request[at] = static_cast<char>(random());
      } else {
        request.erase(at, 1 + random() % 8);
      }
    }
    TestClient client(port_);
    client.send(request);
    if (random() % 2 == 0) client.read_head();
  }
  EXPECT_TRUE(soon([&] { return health()["running"] == 0; }));
  EXPECT_EQ(execute_to_end(port_, body("after", 3))["tokens_out"], 3);
}

TEST_F(ServerTest, ABodyOfOneMebibyteIsRead) {
  start();
  const std::string text = body("j", 1).dump();
  EXPECT_EQ(ask(port_, "POST", "/execute", text + std::string((1 << 20) - text.size(), ' ')).status, 200);
}

TEST_F(ServerTest, ContinueIsSentWhenItIsWaitedFor) {
  start();
  const std::string text = body("j", 1).dump();
  TestClient client(port_);
  client.send(
      fmt::format("POST /execute HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                  "Expect: 100-continue\r\nContent-Length: {}\r\n\r\n",
                  text.size()));
  EXPECT_EQ(client.read_head().status, 100);
  client.send(text);
  EXPECT_EQ(client.read_head().status, 200);
}

TEST_F(ServerTest, TheContextIsCheckedWithBothCounts) {
  start();
  const TestAnswer answer = ask(port_, "POST", "/execute", body("j", 2000, "the").dump());
  EXPECT_EQ(answer.status, 400);
  const auto error = answer.json()["errors"][0];
  EXPECT_EQ(error["field"], "max_tokens");
  EXPECT_THAT(error["message"].get<std::string>(),
              testing::AllOf(testing::HasSubstr("3 tokens"), testing::HasSubstr("2000")));
}

TEST_F(ServerTest, CorrelationIdsAreEchoedAndLogged) {
  start();
  const TestAnswer mine = ask(port_, "GET", "/health", "", "X-Correlation-Id: mine-1\r\n");
  EXPECT_EQ(mine.headers.at("x-correlation-id"), "mine-1");
  EXPECT_EQ(ask(port_, "GET", "/health").headers.at("x-correlation-id").size(), 36u);
  ask(port_, "POST", "/execute", body("j7", 3).dump(),
      "Content-Type: application/json\r\nX-Correlation-Id: mine-2\r\n");
  std::vector<std::string> messages;
  std::istringstream lines(logged_.str());
  for (std::string line; std::getline(lines, line);) {
    const auto fields = json::parse(line)["fields"];
    if (fields.value("job_id", "") == "j7" && fields.value("correlation_id", "") == "mine-2") {
      messages.push_back(fields["message"]);
    }
  }
  EXPECT_THAT(messages, testing::ElementsAre("request accepted", "first token", "request ended"));
}

TEST_F(ServerTest, CancelEndsAJobAndIsIdempotent) {
  step_ms_ = 5;
  start();
  TestClient client(port_);
  client.request("POST", "/execute", body("long", 1900).dump());
  client.read_head();
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(client.next_event());
  for (int i = 0; i < 3; ++i) EXPECT_EQ(ask(port_, "POST", "/cancel", R"({"job_id":"long"})").status, 202);
  const auto events = client.all_events();
  ASSERT_FALSE(events.empty());
  EXPECT_EQ(events.back()["type"], "end");
  EXPECT_EQ(events.back()["stop_reason"], "CANCELLED");
}

TEST_F(ServerTest, AJobIdThatRunsIsRefused) {
  step_ms_ = 5;
  start();
  TestClient client(port_);
  client.request("POST", "/execute", body("twice", 1900).dump());
  client.read_head();
  EXPECT_EQ(ask(port_, "POST", "/execute", body("twice", 1).dump()).status, 409);
  client.close();
  EXPECT_TRUE(soon([&] { return ask(port_, "POST", "/execute", body("twice", 1).dump()).status == 200; }));
}

TEST_F(ServerTest, ADisconnectCancelsAtOnce) {
  step_ms_ = 5;
  start();
  const auto pages = health()["kv_pages_total"];
  for (const int events_before : {0, 1, 4}) {
    TestClient client(port_);
    client.request("POST", "/execute", body("gone", 1900).dump());
    if (events_before > 0) client.read_head();
    for (int i = 0; i < events_before; ++i) client.next_event();
    client.close();
    EXPECT_TRUE(soon([&] { return health()["running"] == 0 && health()["kv_pages_free"] == pages; })) << events_before;
  }
}

TEST_F(ServerTest, TheQueueIsBounded) {
  options_.max_waiting = 2;
  step_ms_ = 1000;  // the first step keeps the engine busy while the others queue up
  start();
  std::vector<std::unique_ptr<TestClient>> clients;
  int refused = 0;
  for (int i = 0; i < 6; ++i) {
    clients.push_back(std::make_unique<TestClient>(port_));
    clients.back()->request("POST", "/execute", body(fmt::format("q{}", i), 2).dump());
    const TestAnswer head = clients.back()->read_head();
    if (head.status != 503) continue;
    ++refused;
    EXPECT_EQ(head.headers.at("retry-after"), "1");
  }
  EXPECT_GE(refused, 3);
  EXPECT_LE(refused, 4);
  step_ms_ = 0;
}

TEST_F(ServerTest, ConnectionsAreBounded) {
  options_.max_connections = 3;
  start();
  std::vector<std::unique_ptr<TestClient>> clients;
  for (int i = 0; i < 3; ++i) {
    clients.push_back(std::make_unique<TestClient>(port_));
    clients.back()->request("GET", "/health");
    EXPECT_EQ(clients.back()->read_answer().status, 200);
  }
  EXPECT_EQ(ask(port_, "GET", "/health").status, 503);
  clients.clear();
  EXPECT_TRUE(soon([&] { return ask(port_, "GET", "/health").status == 200; }));
}

TEST_F(ServerTest, SilentConnectionsAreClosed) {
  options_.idle_timeout = milliseconds(100);
  start();
  TestClient silent(port_), slow(port_);
  slow.send("POST /execute HT");
  EXPECT_TRUE(silent.ended_by_peer());
  EXPECT_TRUE(slow.ended_by_peer());
}

TEST_F(ServerTest, ARequestThatTakesTooLongFails) {
  options_.request_timeout = milliseconds(100);
  step_ms_ = 5;
  start();
  const auto events = execute(port_, body("slow", 1900));
  ASSERT_FALSE(events.empty());
  EXPECT_EQ(events.back()["type"], "error");
  EXPECT_EQ(events.back()["code"], "TIMEOUT");
}

TEST_F(ServerTest, TheTokenIsAsked) {
  options_.token = "0123456789abcdef";
  start();
  EXPECT_EQ(ask(port_, "GET", "/health").status, 200);
  const TestAnswer refused = ask(port_, "POST", "/execute", body("j", 1).dump());
  EXPECT_EQ(refused.status, 401);
  EXPECT_EQ(refused.json()["message"], "unauthorized");
  EXPECT_EQ(ask(port_, "POST", "/execute", body("j", 1).dump(),
                "Content-Type: application/json\r\nAuthorization: Bearer 0123456789abcdef\r\n")
                .status,
            200);
}

TEST_F(ServerTest, ADrainLetsJobsEndAndRefusesNewOnes) {
  step_ms_ = 5;
  start();
  TestClient idle(port_), client(port_);
  client.request("POST", "/execute", body("last", 100).dump());
  client.read_head();
  client.next_event();
  server_->drain();
  EXPECT_TRUE(soon([&] { return health()["status"] == "unhealthy"; }));
  const TestAnswer refused = ask(port_, "POST", "/execute", body("new", 1).dump());
  EXPECT_EQ(refused.status, 503);
  EXPECT_EQ(refused.json()["retriable"], true);
  EXPECT_EQ(client.last_event()["tokens_out"], 100);
  thread_.join();
  EXPECT_TRUE(finished_);
  EXPECT_TRUE(idle.ended_by_peer());
  EXPECT_THROW(TestClient late(port_), std::exception);
}

TEST_F(ServerTest, ADrainThatTakesTooLongCancels) {
  options_.drain_timeout = milliseconds(100);
  step_ms_ = 5;
  start();
  TestClient client(port_);
  client.request("POST", "/execute", body("endless", 1900).dump());
  client.read_head();
  client.next_event();
  server_->drain();
  EXPECT_EQ(client.last_event()["stop_reason"], "CANCELLED");
  thread_.join();
  EXPECT_TRUE(finished_);
}

TEST_F(ServerTest, StopNowLeavesJobsBehindSafely) {
  step_ms_ = 5;
  start();
  TestClient client(port_);
  client.request("POST", "/execute", body("cut", 1900).dump());
  client.read_head();
  client.next_event();
  server_->stop_now();
  thread_.join();
  EXPECT_FALSE(finished_);
  server_.reset();  // before the engine, which still steps
  std::this_thread::sleep_for(milliseconds(50));
  engine_.reset();
}

TEST_F(ServerTest, AReaderThatStopsStallsNobody) {
  start();
  TestClient stuck(port_, 1024);
  stuck.request("POST", "/execute", body("stuck", 1900).dump());
  for (int i = 0; i < 5; ++i) {
    EXPECT_EQ(execute_to_end(port_, body(fmt::format("free{}", i), 200))["tokens_out"], 200);
  }
  EXPECT_TRUE(soon([&] { return health()["running"] == 0; })) << "the engine does not wait for the reader";
  EXPECT_EQ(stuck.read_head().status, 200);
  EXPECT_EQ(stuck.last_event()["tokens_out"], 1900) << "and the reader loses nothing";
}

}  // namespace
}  // namespace llorch
