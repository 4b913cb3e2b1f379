// A server with a toy for a model, and the job that its tests send.
#pragma once

#include <gtest/gtest.h>
#include <spdlog/sinks/ostream_sink.h>

#include <atomic>
#include <sstream>
#include <thread>

#include "engine/fake_program_for_test.h"
#include "format/checkpoint.h"
#include "server/client_for_test.h"
#include "server/server.h"

namespace llorch::test {

using nlohmann::json;
using std::chrono::milliseconds;

inline json body(const std::string& job_id, uint32_t max_tokens, const std::string& prompt = "the fox") {
  return {{"job_id", job_id}, {"prompt", prompt}, {"max_tokens", max_tokens}};
}

class ServerTest : public testing::Test {
 protected:
  ServerTest() {
    options_.port = 0;
    options_.drain_timeout = milliseconds(10000);
  }

  void start() {
    FakeOptions fake;
    fake.vocab = 304;
    fake.context = 4096;
    fake.n_pages = 2048;
    fake.before_run = [this](const Batch&) { std::this_thread::sleep_for(milliseconds(step_ms_.load())); };
    EngineOptions engine_options;
    engine_options.context = fake.context;
    engine_options.on_record = [this](const SequenceRecord& record) { recorded_ = record.id; };
    engine_ = std::make_unique<Engine>(std::make_unique<FakeProgram>(fake), engine_options);
    ServedModel model;
    model.name = "toy";
    model.backend = "cpu";
    model.context = 2000;
    model.eos = eos_;
    server_ = std::make_unique<Server>(
        options_, model, Tokenizer::load(Checkpoint::open(LLORCH_SOURCE_DIR "/tests/fixtures/tiny-llama")), *engine_,
        log_);
    port_ = server_->listen().port();
    thread_ = std::thread([this] { finished_ = server_->run(); });
  }

  void TearDown() override {
    if (!thread_.joinable()) return;
    server_->drain();
    thread_.join();
    EXPECT_TRUE(finished_ || cut_short_expected_);
    server_.reset();
    engine_.reset();
  }

  json health() { return ask(port_, "GET", "/health").json(); }

  bool soon(const std::function<bool()>& condition) {
    for (int i = 0; i < 500; ++i) {
      if (condition()) return true;
      std::this_thread::sleep_for(milliseconds(10));
    }
    return false;
  }

  std::ostringstream logged_;
  Logger log_{LogLevel::debug, std::make_shared<spdlog::sinks::ostream_sink_mt>(logged_)};
  ServerOptions options_;
  std::atomic<int> step_ms_{0};
  std::atomic<RequestId> recorded_{0};  // the last one
  std::vector<int32_t> eos_;
  std::unique_ptr<Engine> engine_;
  std::unique_ptr<Server> server_;
  uint16_t port_ = 0;
  std::thread thread_;
  std::atomic<bool> finished_{false};
  bool cut_short_expected_ = false;
};

}  // namespace llorch::test
