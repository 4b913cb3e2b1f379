// The faults of docs/errors.md, one after another: each is made to happen in a real worker or command, and client, log,
// stderr and exit code say what the tables say.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "faults_for_test.h"
#include "shell_for_test.h"
#include "worker_for_test.h"

namespace llorch {
namespace {

using nlohmann::json;
using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

class Faults : public testing::Test {
 protected:
  void SetUp() override {
#ifndef LLORCH_FAULTS
    GTEST_SKIP() << "this build has no fault injection (LLORCH_FAULTS)";
#endif
  }
};

// A failure says each thing once.
void expect_no_repetition(const json& failure, const std::string& message) {
  EXPECT_FALSE(message.empty());
  EXPECT_THAT(failure.dump(), Not(HasSubstr("forward pass failed")));
  std::vector<std::string> parts = {message};
  for (const json& cause : failure.value("cause", json::array())) parts.push_back(cause);
  for (const char* field : {"shapes", "device"})
    if (failure.contains(field)) parts.push_back(failure[field]);
  for (const std::string& part : parts) {
    const auto says_it = [&](const std::string& other) { return other.find(part) != std::string::npos; };
    EXPECT_EQ(std::count_if(parts.begin(), parts.end(), says_it), 1) << part << " in " << failure;
  }
}

// The log's line of a failed request says what its client heard, and both say it once.
void expect_logged(const WorkerProcess& worker, const json& error) {
  const json line = awaited_log_line(worker, "request failed");
  EXPECT_EQ(line["error"], error["message"]);
  for (const char* field : {"code", "step", "layer", "verb", "shapes", "dtype", "position", "kv_len", "cause"})
    EXPECT_EQ(line.value(field, json()), error.value(field, json())) << field;
  expect_no_repetition(error, error["message"]);
}

// The last line of a worker that has failed.
json last_words(const WorkerProcess& worker) {
  json line = awaited_log_line(worker, "worker failed");
  expect_no_repetition(line, line["error"]);
  return line;
}

// The worker serves on: another request has the events that it should have.
void expect_serves(Worker& worker) {
  const json end = execute_to_end(worker.http(), job("after", 5));
  EXPECT_EQ(end["stop_reason"], "MAX_TOKENS") << end;
  EXPECT_EQ(worker.health()["status"], "healthy");
  EXPECT_TRUE(soon([&] { return worker.idle(); })) << worker.health();
}

TEST_F(Faults, MemoryThatIsNotThereAtLoad) {
  struct Case {
    const char *fault, *what, *remedy;
  };
  for (const Case& one : {Case{"memory.weights:1", "the weights need 275072 bytes", "a smaller model"},
                          Case{"memory.kv:1", "the KV pages need ", "--kv-memory"},
                          Case{"memory.activations:1", "the activations need ", "--max-running"}}) {
    for (const char* backend : {"cpu", "reference"}) {
      const Armed armed(one.fault);
      Worker worker({"--backend", backend});
      EXPECT_EQ(worker.wait(), 1) << one.fault;
      const json line = last_words(worker);
      EXPECT_EQ(line["code"], "VRAM_OOM");
      EXPECT_THAT(line["error"].get<std::string>(), AllOf(HasSubstr(one.what), HasSubstr(one.remedy))) << backend;
    }
  }
}

TEST(RealFaults, MemoryThatTheSystemRefuses) {
#if defined(__linux__) && !defined(__SANITIZE_ADDRESS__)
  const Result result =
      shell(fmt::format("ulimit -v 2000000; {} serve --port 0 --record off --threads 2 --model {} --kv-memory 4GB",
                        LLORCH_EXECUTABLE, kTinyModel));
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_THAT(result.output, AllOf(HasSubstr("VRAM_OOM"), HasSubstr("the KV pages need 4294967296 bytes")));
#else
  GTEST_SKIP() << "limits of the address space are Linux's, and the address sanitizer needs all of it";
#endif
}

TEST_F(Faults, AStepThatTheDeviceRefuses) {
  for (const char* backend : {"cpu", "reference"}) {
    const Armed armed("launch/layers.1.attn_out@serving:1");
    Worker worker({"--backend", backend});
    const json error = execute_to_end(worker.http(), job("doomed", 5));
    EXPECT_EQ(error["code"], "INFERENCE_FAILED");
    EXPECT_EQ(error["step"], "layers.1.attn_out");
    EXPECT_EQ(error["layer"], 1);
    EXPECT_EQ(error["verb"], "linear");
    EXPECT_EQ(error["backend"], backend);
    EXPECT_THAT(error["shapes"].get<std::string>(), HasSubstr("layers.1.attn_output.weight bf16 [64, 64]"));
    EXPECT_EQ(error["cause"], json({"the kernel could not be launched", "error 999 of the driver (injected)"}));
    EXPECT_EQ(error["position"], 0);
    EXPECT_GT(error["kv_len"], 1);
    EXPECT_EQ(error["message"], "The device refused step layers.1.attn_out.");
    expect_logged(worker, error);
    expect_serves(worker);
  }
}

TEST_F(Faults, AFailureDuringDecodeComesAfterItsTokens) {
  const Armed armed("launch/logits@serving:4");
  Worker worker;
  const auto events = execute(worker.http(), job("doomed", 20));
  ASSERT_FALSE(events.empty());
  EXPECT_EQ(ids_of(events).size(), 3u);
  const json& error = events.back();
  EXPECT_EQ(error["code"], "INFERENCE_FAILED");
  EXPECT_EQ(error["kv_len"], error["position"].get<int>() + 1) << "one row";
  expect_logged(worker, error);
  expect_serves(worker);
}

TEST_F(Faults, ThreeFailedStepsInARowAreUnhealthyUntilOneSucceeds) {
  const Armed armed("launch/embed@serving:1,launch/embed@serving:2,launch/embed@serving:3");
  Worker worker;
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(worker.health()["status"], "healthy");
    EXPECT_EQ(execute_to_end(worker.http(), job("doomed", 5))["code"], "INFERENCE_FAILED");
  }
  EXPECT_EQ(worker.health()["status"], "unhealthy");
  EXPECT_EQ(worker.health()["reason"], "STEPS_FAIL");
  expect_serves(worker);
}

TEST_F(Faults, AThreadOfThePoolThatThrows) {
  const Armed armed("thread@serving:1");
  Worker worker;
  json error = json::object();  // which task another thread takes first, and when, is its luck
  for (int i = 0; i < 20 && error.value("type", "") != "error"; ++i)
    error = execute_to_end(worker.http(), job(fmt::format("doomed{}", i), 200));
  EXPECT_EQ(error["code"], "WORKER_FAULT");
  EXPECT_EQ(error["cause"], json({"a task of another thread threw (injected)"}));
  EXPECT_FALSE(error["step"].get<std::string>().empty());
  EXPECT_EQ(error["message"], fmt::format("A bug of the worker broke step {}.", error["step"].get<std::string>()));
  expect_logged(worker, error);
  expect_serves(worker);
}

TEST_F(Faults, MemoryThatRunsOutInAStep) {
  const Armed armed("memory.step/layers.0.act@serving:1");
  Worker worker({"--backend", "reference"});
  const json error = execute_to_end(worker.http(), job("doomed", 5));
  EXPECT_EQ(error["code"], "VRAM_OOM");
  EXPECT_EQ(error["step"], "layers.0.act");
  EXPECT_EQ(error["cause"], json({"std::bad_alloc"}));
  expect_logged(worker, error);
  expect_serves(worker);
}

TEST_F(Faults, ABugOutsideTheStepsEndsTheWorkerForItsSupervisor) {
  const Armed armed("engine@serving:2");
  Worker worker;
  const json error = execute_to_end(worker.http(), job("doomed", 5));
  EXPECT_EQ(error["code"], "WORKER_FAULT");
  EXPECT_EQ(error["message"], "A bug has stopped the engine.");
  ASSERT_EQ(error["cause"].size(), 1u);
  EXPECT_THAT(error["cause"][0].get<std::string>(), HasSubstr("src/engine/engine_step.cpp:"));
  EXPECT_EQ(worker.wait(), 3);
  const json line = last_words(worker);
  EXPECT_EQ(line["code"], "WORKER_FAULT");
  EXPECT_EQ(line["cause"], error["cause"]);
}

TEST_F(Faults, AStepThatHangsIsSaidWhileItLasts) {
  const Armed armed("hang/layers.0.attn@serving:1");
  Worker worker({"--stall-timeout", "0.2"});
  TestClient client(worker.http());
  client.request("POST", "/execute", job("slow", 5).dump());
  json health;
  EXPECT_TRUE(soon([&] { return (health = worker.health())["status"] == "unhealthy"; }));
  EXPECT_EQ(health["reason"], "STEP_HANGS");
  EXPECT_GE(health["step_ms"], 200);
  EXPECT_EQ(client.read_head().status, 200);
  EXPECT_EQ(client.last_event()["stop_reason"], "MAX_TOKENS");
  EXPECT_EQ(awaited_log_line(worker, "a step hangs")["code"], "STEP_HANGS");
  expect_serves(worker);
}

TEST(RealFaults, ADeadlineThatPasses) {
  Worker worker({"--backend", "reference", "--request-timeout", "0.05"});
  const json error = execute_to_end(worker.http(), job("late", 900));
  EXPECT_EQ(error["code"], "TIMEOUT");
  EXPECT_THAT(error["message"].get<std::string>(), HasSubstr("of 900 tokens"));
  expect_logged(worker, error);
  EXPECT_TRUE(soon([&] { return worker.idle(); })) << worker.health();
}

TEST_F(Faults, ADeviceThatIsLostEndsTheWorkerForItsSupervisor) {
  const Armed armed("device/layers.0.qkv@serving:3");
  Worker worker({"--max-running", "1"});
  std::vector<std::unique_ptr<TestClient>> clients;  // one runs, one waits
  for (const char* name : {"running", "waiting"}) {
    clients.push_back(std::make_unique<TestClient>(worker.http()));
    clients.back()->request("POST", "/execute", job(name, 900).dump());
  }
  for (const auto& client : clients) {
    ASSERT_EQ(client->read_head().status, 200);
    const json error = client->last_event();
    EXPECT_EQ(error["code"], "DEVICE_LOST") << error;
    EXPECT_EQ(error["step"], "layers.0.qkv");
    EXPECT_EQ(error["cause"], json({"the device does not answer any more (injected)"}));
  }
  EXPECT_EQ(worker.wait(), 3);
  const json line = last_words(worker);
  EXPECT_EQ(line["code"], "DEVICE_LOST");
  EXPECT_EQ(line["step"], "layers.0.qkv");
  EXPECT_EQ(line["cause"], json({"the device does not answer any more (injected)"}));
}

TEST_F(Faults, ADeviceThatIsLostAtTheStartEndsTheWorkerToo) {
  const Armed armed("device:1");
  Worker worker;
  EXPECT_EQ(worker.wait(), 3);
  EXPECT_EQ(last_words(worker)["code"], "DEVICE_LOST");
}

TEST(RealFaults, ANaNInAWeightFailsThoseWhoMeetItOnly) {
  const Damaged model("llorch_e2e_nan");
  const size_t token = model.read("tokenizer.json")["model"]["vocab"]["Z"];
  model.poke_nan("model.embed_tokens.weight", token);
  Worker worker({"--model", model.path()});
  const std::vector<int32_t> alone = ids_of(execute(worker.http(), job("alone", 200)));
  TestClient beside(worker.http());
  beside.request("POST", "/execute", job("beside", 200).dump());
  ASSERT_EQ(beside.read_head().status, 200);
  const json error = execute_to_end(worker.http(), job("doomed", 5, "a Z in it"));
  EXPECT_EQ(ids_of(beside.all_events()), alone) << "others go on as if nothing had been";
  EXPECT_EQ(error["code"], "NUMERIC_FAULT");
  EXPECT_EQ(error["step"], "embed");
  EXPECT_EQ(error["dtype"], "bf16");
  ASSERT_EQ(error["cause"].size(), 2u);
  EXPECT_EQ(error["cause"][1], "weight token_embd.weight at column 0 of the token's row is NaN");
  for (const json& cause : error["cause"])
    EXPECT_THAT(cause.get<std::string>(), Not(HasSubstr(std::to_string(token)))) << "prompts are never told";
  EXPECT_GT(error["kv_len"], error["position"]);
  expect_logged(worker, error);
  expect_serves(worker);
}

TEST(RealFaults, ANaNThatEveryTokenMeetsIsFoundBeforeAnyRequest) {
  const Damaged model("llorch_e2e_nan_everywhere");
  model.poke_nan("model.layers.1.mlp.down_proj.weight", 3);
  Worker worker({"--model", model.path()});
  EXPECT_EQ(worker.wait(), 1);
  const json line = last_words(worker);
  EXPECT_EQ(line["code"], "NUMERIC_FAULT");
  EXPECT_EQ(line["error"], "Self-test: the first run failed: The logits at position 12 hold NaN.");
  EXPECT_EQ(line["step"], "layers.1.ffn_out");
  EXPECT_EQ(line["cause"], json({"the first step that gives NaN is layers.1.ffn_out, at position 0, element 3",
                                 "weight layers.1.ffn_down.weight at row 3, column 0 is NaN"}));
}

TEST(RealFaults, AShapeThatDoesNotFitTheConfigurationIsTheCallersToMend) {
  const Damaged model("llorch_e2e_shape");
  json config = model.read("config.json");
  config["intermediate_size"] = 96;
  model.write("config.json", config);
  Worker worker({"--model", model.path()});
  EXPECT_EQ(worker.wait(), 2);
  const json line = last_words(worker);
  EXPECT_EQ(line["code"], "INVALID_MODEL");
  EXPECT_EQ(line["error"], model.path() + ": the weights do not fit the configuration");
  EXPECT_EQ(line["cause"],
            json({"layers.0.gate_up: stacked weight rows 384 != slot width 192 (layers.0.ffn_gate.weight "
                  "[192, 64], layers.0.ffn_up.weight [192, 64])"}));
  const Result run = llorch("run --prompt x " + model.path());
  EXPECT_EQ(run.exit_code, 2);
  EXPECT_THAT(run.output, testing::EndsWith("layers.0.ffn_up.weight [192, 64]) [INVALID_MODEL]\n"));
}

TEST(RealFaults, PagesThatCanNeverHoldAContextAreRefusedAtTheStart) {
  Worker worker({"--ctx", "1024", "--kv-memory", "100000"});
  EXPECT_EQ(worker.wait(), 2);
  EXPECT_EQ(last_words(worker)["code"], "OUT_OF_PAGES");
}

const std::string kRun = "run --threads 2 --prompt 'a Z in it' --max-tokens 5 ";

TEST_F(Faults, ACommandSaysItInOneLineAndExits) {
  struct Case {
    const char *fault, *line;
    int exit_code;
  };
  for (const Case& one :
       {Case{"launch/layers.1.attn_out:1",
             "llorch: The device refused step layers.1.attn_out: the kernel could not be launched: error 999 of the "
             "driver (injected) [INFERENCE_FAILED]\n",
             1},
        Case{"memory.step/embed:1", "llorch: There was no memory for step embed: std::bad_alloc [VRAM_OOM]\n", 1},
        Case{"memory.kv:1", "lower --kv-memory or --ctx [VRAM_OOM]\n", 1},
        Case{"device/layers.0.qkv:1",
             "llorch: The device was lost in step layers.0.qkv: the device does not answer any more (injected) "
             "[DEVICE_LOST]\n",
             3}}) {
    const Armed armed(one.fault);
    const Result result = llorch(kRun + kTinyModel);
    EXPECT_EQ(result.exit_code, one.exit_code) << one.fault;
    EXPECT_THAT(result.output, testing::EndsWith(one.line));
  }
}

TEST(RealFaults, ACommandNamesTheWeightThatHoldsNaN) {
  const Damaged model("llorch_e2e_run_nan");
  model.poke_nan("model.layers.1.mlp.down_proj.weight", 3);
  const Result result = llorch(kRun + model.path());
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_THAT(result.output, AllOf(HasSubstr("the first step that gives NaN is layers.1.ffn_out"),
                                   testing::EndsWith("weight layers.1.ffn_down.weight at row 3, column 0 is NaN "
                                                     "[NUMERIC_FAULT]\n")));
}

}  // namespace
}  // namespace llorch
