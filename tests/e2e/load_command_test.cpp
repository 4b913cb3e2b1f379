// llorch load: right figures of right answers, and an exit code that says when something was wrong.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/read_until.hpp>
#include <boost/asio/streambuf.hpp>
#include <boost/asio/write.hpp>

#include "shell_for_test.h"
#include "worker_for_test.h"

namespace llorch {
namespace {

namespace asio = boost::asio;
using nlohmann::json;
using testing::HasSubstr;

const std::string kTiny = std::string(" --model ") + kTinyModel;

std::string url(uint16_t port) { return fmt::format(" --url http://127.0.0.1:{}", port); }

TEST(LoadCommand, StartsAWorkerMeasuresItAndStopsIt) {
  const std::string log = testing::TempDir() + "/llorch_e2e_load.log";
  const Result result = llorch(
      "load --clients 1,3 --requests 2 --prompt-tokens 20 --max-tokens 12 --kv-memory 64MB --json --log-file " + log);
  ASSERT_EQ(result.exit_code, 0) << result.output;
  const json report = json::parse(result.output);
  EXPECT_EQ(report["numerics"], "exact");
  ASSERT_EQ(report["runs"].size(), 2u);
  const json& run = report["runs"][1];
  EXPECT_EQ(run["clients"], 3);
  EXPECT_EQ(run["requests"], 6);
  EXPECT_EQ(run["errors"], 0);
  EXPECT_EQ(run["tokens"], 6 * 12);
  EXPECT_EQ(run["same_alone"], true);
  EXPECT_GT(run["tokens_per_s"], 0);
  EXPECT_LE(run["ttft_ms"]["median"], run["ttft_ms"]["p99"]);
  EXPECT_THAT(shell("cat " + log).output, HasSubstr("worker stopped"));
}

TEST(LoadCommand, MeasuresAWorkerThatRuns) {
  Worker worker;
  const Result result = llorch("load" + kTiny + url(worker.http()) + " --clients 2,5 --requests 3 --max-tokens 9");
  EXPECT_EQ(result.exit_code, 0) << result.output;
  EXPECT_THAT(result.output, HasSubstr("prompts of 128 tokens, 9 tokens each, temperature 0.8"));
  EXPECT_THAT(result.output, HasSubstr("\n2 clients: request 3 has the same tokens alone"));
  EXPECT_THAT(result.output, HasSubstr("\n5 clients: request 7 has the same tokens alone"));
  EXPECT_TRUE(soon([&] { return worker.idle(); })) << worker.health();
}

TEST(LoadCommand, ManyStreamsOfAWorkerThatIsFasterThanItsSockets) {
  const WorkerProcess toy(LLORCH_TOY_WORKER, {"--port", "0"});
  ASSERT_TRUE(soon([&] { return toy.port().has_value(); })) << toy.last_log_lines();
  const Result result = llorch("load" + kTiny + url(*toy.port()) + " --clients 100 --requests 3 --json");
  ASSERT_EQ(result.exit_code, 0) << result.output;
  EXPECT_EQ(json::parse(result.output)["runs"][0]["tokens"], 100 * 3 * 128);
}

TEST(LoadCommand, AnotherTokenizerThanTheWorkersIsFound) {
  Worker worker;
  const Result result = llorch("load" + url(worker.http()) + " --clients 1 --requests 1 --json");
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_THAT(result.output, HasSubstr("is --model the model that it serves"));
}

TEST(LoadCommand, ARefusalIsAnErrorWithItsReason) {
  Worker worker;
  const Result result =
      llorch("load" + kTiny + url(worker.http()) + " --clients 2 --prompt-tokens 600 --max-tokens 600");
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_THAT(result.output, HasSubstr("requests failed with 2 clients: HTTP 400"));
  EXPECT_THAT(result.output, HasSubstr("1200 together"));
}

TEST(LoadCommand, AnAbsentWorkerIsAnError) {
  const Result result = llorch("load --url http://no-such-host.invalid --clients 1");
  EXPECT_EQ(result.exit_code, 1);
}

TEST(LoadCommand, BadOptionsAreRefused) {
  for (const char* options :
       {"--clients 0", "--clients 1,x", "--clients 5000", "--clients 4096 --requests 65", "--requests 0",
        "--prompt-tokens 0", "--prompt-tokens 1", "--max-tokens 0", "--max-tokens 2049", "--temperature 3",
        "--temperature nan", "--model /nowhere", "--url ftp://x", "--url http://x --threads 2",
        "--url http://x --backend cpu", "--url http://x --kv-memory 1GB"})
    EXPECT_EQ(llorch(std::string("load ") + options).exit_code, 2) << options;
}

// Answers /health, and then each request of one client with what `answers` says; one connection at a time.
class FalseWorker {
 public:
  explicit FalseWorker(std::vector<std::string> answers)
      : answers_(std::move(answers)), thread_([this] {
          while (!stopping_) {
            boost::system::error_code error;
            asio::ip::tcp::socket socket(io_);
            acceptor_.accept(socket, error);
            if (!error) serve(socket);
          }
        }) {}
  ~FalseWorker() {
    stopping_ = true;
    asio::ip::tcp::socket socket(io_);  // wakes accept()
    boost::system::error_code ignored;
    socket.connect(acceptor_.local_endpoint(), ignored);
    socket.close();
    thread_.join();
  }
  uint16_t port() const { return acceptor_.local_endpoint().port(); }

  static std::string stream(const std::string& numerics, const std::vector<int>& ids) {
    std::string body =
        fmt::format("data: {{\"type\":\"started\",\"prompt_tokens\":8,\"numerics\":\"{}\"}}\n\n", numerics);
    for (size_t i = 0; i < ids.size(); ++i)
      body += fmt::format("data: {{\"type\":\"token\",\"t\":\"\",\"i\":{},\"id\":{}}}\n\n", i, ids[i]);
    body += fmt::format("data: {{\"type\":\"end\",\"tokens_out\":{},\"stop_reason\":\"MAX_TOKENS\"}}\n\n", ids.size());
    return fmt::format("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{}", body.size(), body);
  }

 private:
  void serve(asio::ip::tcp::socket& socket) {
    boost::system::error_code error;
    asio::streambuf bytes;
    while (!error && !stopping_) {
      asio::read_until(socket, bytes, "\r\n\r\n", error);
      if (error) return;
      const std::string head(static_cast<const char*>(bytes.data().data()), bytes.size());
      const bool health = head.rfind("GET /health", 0) == 0;
      bytes.consume(bytes.size());  // the body may be in the same read or follow; nobody looks at it
      std::string answer = "HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n{\"status\":\"healthy\"}";
      if (!health) {
        if (next_ == answers_.size()) return;
        answer = answers_[next_++];
      }
      asio::write(socket, asio::buffer(answer), error);
    }
  }

  std::vector<std::string> answers_;
  size_t next_ = 0;
  std::atomic<bool> stopping_{false};
  asio::io_context io_;
  asio::ip::tcp::acceptor acceptor_{io_, {asio::ip::make_address("127.0.0.1"), 0}};
  std::thread thread_;
};

std::string load_of(const FalseWorker& worker) {
  return "load" + kTiny + url(worker.port()) + " --clients 1 --requests 1 --prompt-tokens 8 --max-tokens 3";
}

TEST(LoadCommand, OtherTokensAloneFailInExactAndAreToldInFast) {
  {
    const FalseWorker worker({FalseWorker::stream("exact", {1, 2, 3}), FalseWorker::stream("exact", {1, 2, 4})});
    const Result result = llorch(load_of(worker));
    EXPECT_EQ(result.exit_code, 1);
    EXPECT_THAT(result.output, HasSubstr("had other tokens than alone, from token 2 on"));
  }
  {
    const FalseWorker worker({FalseWorker::stream("fast", {1, 2, 3}), FalseWorker::stream("fast", {1, 5, 3})});
    const Result result = llorch(load_of(worker));
    EXPECT_EQ(result.exit_code, 0) << result.output;
    EXPECT_THAT(result.output, HasSubstr("request 0 has other tokens, from token 1 on, alone"));
  }
}

TEST(LoadCommand, BrokenAnswersAreErrors) {
  const std::string good = FalseWorker::stream("exact", {1, 2, 3});
  for (const std::string& bad :
       {FalseWorker::stream("exact", {1, 2}), good.substr(0, good.size() - 1) + "x",
        std::string("no HTTP at all\r\n\r\n"), std::string("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
        std::string("HTTP/1.1 503 no\r\nContent-Length: 4\r\n\r\nfull")}) {
    const FalseWorker worker({bad});
    const Result result = llorch(load_of(worker));
    EXPECT_EQ(result.exit_code, 1) << bad;
    EXPECT_THAT(result.output, HasSubstr("1 of 1 requests failed with 1 clients: ")) << bad;
  }
  const FalseWorker cut({});  // closes instead of answering
  EXPECT_THAT(llorch(load_of(cut)).output, HasSubstr("the connection broke"));
}

}  // namespace
}  // namespace llorch
