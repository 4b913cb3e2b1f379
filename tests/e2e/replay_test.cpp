// The flight recorder of a real worker, and llorch replay on what it left.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include "faults_for_test.h"
#include "shell_for_test.h"
#include "worker_for_test.h"

namespace llorch {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

class Recorded : public testing::Test {
 protected:
  Recorded() { fs::remove_all(folder_); }
  ~Recorded() override { fs::remove_all(folder_); }

  std::vector<std::string> flags(std::vector<std::string> more = {}) const {
    more.insert(more.end(), {"--record-dir", folder_.string()});
    return more;
  }

  // The bundle that the worker's last line about one names, once it is there.
  static fs::path bundle(const WorkerProcess& worker) {
    return awaited_log_line(worker, "bundle written").value("bundle", "");
  }

  size_t n_bundles() const {
    return static_cast<size_t>(std::distance(fs::directory_iterator(folder_), fs::directory_iterator()));
  }

  // A copy of the bundle that is changed.
  template <typename Change>
  fs::path changed(const fs::path& bundle, Change change) const {
    json content = json::parse(std::ifstream(bundle));
    change(content);
    const fs::path copy = folder_ / "changed.json";
    std::ofstream(copy) << content;
    return copy;
  }

  const fs::path folder_ = fs::path(testing::TempDir()) / "llorch_e2e_bundles";
};

Result replay(const fs::path& bundle, const std::string& flags = "") {
  return llorch("replay " + bundle.string() + " " + flags);
}

json asking(const std::string& job_id, uint32_t max_tokens) {
  json body = job(job_id, max_tokens);
  body["record"] = true;
  body["seed"] = 7;
  return body;
}

std::string text_of_file(const fs::path& path) {
  std::ostringstream text;
  text << std::ifstream(path).rdbuf();
  return text.str();
}

// A redacted bundle of a real fault: nothing of the prompt is in it, and with the prompt it fails again.
TEST_F(Recorded, ANaNInAWeightIsMetAgain) {
  const Damaged model("llorch_e2e_replay_nan");
  const int32_t token = model.read("tokenizer.json")["model"]["vocab"]["Z"];
  model.poke_nan("model.embed_tokens.weight", static_cast<size_t>(token));
  Worker worker(flags({"--model", model.path()}));
  const json error = execute_to_end(worker.http(), job("doomed-job", 5, "a Z in it"));
  ASSERT_EQ(error["code"], "NUMERIC_FAULT");
  EXPECT_THAT(error.dump(), Not(HasSubstr(folder_.string()))) << "paths are nothing for clients";
  const fs::path path = bundle(worker);
  EXPECT_EQ(awaited_log_line(worker, "bundle written")["request"],
            awaited_log_line(worker, "request failed")["request"]);
  EXPECT_EQ(awaited_log_line(worker, "bundle written")["end"], "NUMERIC_FAULT");
  struct stat status = {};
  ASSERT_EQ(::stat(path.c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777, 0600u);
  const json content = json::parse(std::ifstream(path));
  EXPECT_TRUE(content["redacted"]);
  EXPECT_EQ(content["failure"]["position"], error["position"]);
  EXPECT_THAT(text_of_file(path),
              AllOf(Not(HasSubstr("a Z")), Not(HasSubstr("doomed-job")), Not(HasSubstr(fmt::format("row {}", token)))));

  const std::string verdict =
      fmt::format("reproduced: before any token NUMERIC_FAULT in embed at position {}\n", error["position"].get<int>());
  for (const char* where : {"", " --on reference", " --tokens 1,2 --on cpu"}) {
    const bool wrong = std::string(where).find("tokens") != std::string::npos;
    const Result result = replay(path, wrong ? where : std::string("--prompt 'a Z in it'") + where);
    EXPECT_EQ(result.exit_code, wrong ? 2 : 0) << result.output;
    EXPECT_THAT(result.output, wrong ? HasSubstr("this is not the recorded prompt: expected ") : HasSubstr(verdict));
  }
  const Result silent = replay(path);
  EXPECT_EQ(silent.exit_code, 2);
  EXPECT_THAT(silent.output, HasSubstr("is redacted: give it with --prompt or --tokens"));
  const Result sound = replay(path, std::string("--prompt 'a Z in it' --model ") + kTinyModel);
  EXPECT_EQ(sound.exit_code, 2);
  EXPECT_THAT(sound.output, AllOf(HasSubstr("not comparable: model_hash: recorded is"),
                                  HasSubstr(", another token_embd.weight [INVALID_INPUT]")));
}

TEST_F(Recorded, ARefusedStepIsReproducedWhereItIsRefusedAgain) {
#ifndef LLORCH_FAULTS
  GTEST_SKIP() << "this build has no fault injection (LLORCH_FAULTS)";
#endif
  fs::path path;
  {
    const Armed armed("launch/logits@serving:4");
    Worker worker(flags({"--record-prompts"}));
    EXPECT_EQ(execute_to_end(worker.http(), job("doomed", 9))["code"], "INFERENCE_FAILED");
    path = bundle(worker);
  }
  const json content = json::parse(std::ifstream(path));
  EXPECT_EQ(content["last_steps"].back()["failed"], true);
  EXPECT_EQ(content["generated"]["tokens"].size(), 3u);
  const std::string tail =
      fmt::format("then INFERENCE_FAILED in logits at position {}\n", content["failure"]["position"].get<int>());
  {
    const Armed armed("launch/logits:4");
    const Result again = replay(path);
    EXPECT_EQ(again.exit_code, 0) << again.output;
    EXPECT_THAT(again.output, HasSubstr("reproduced: 3 tokens, the same logits bit for bit, " + tail));
  }
  const Result sound = replay(path);
  EXPECT_EQ(sound.exit_code, 1);
  EXPECT_THAT(sound.output, AllOf(HasSubstr("not reproduced: 3 tokens are the same, then at position"),
                                  HasSubstr("recorded is INFERENCE_FAILED in logits"), HasSubstr(", got token "),
                                  Not(HasSubstr("in every step"))));
}

TEST_F(Recorded, AWorkerThatEndsLeavesItsBundleBehind) {
#ifndef LLORCH_FAULTS
  GTEST_SKIP() << "this build has no fault injection (LLORCH_FAULTS)";
#endif
  const Armed armed("device/layers.0.qkv@serving:3");
  Worker worker(flags());
  EXPECT_EQ(execute_to_end(worker.http(), job("doomed", 9))["code"], "DEVICE_LOST");
  EXPECT_EQ(worker.wait(), 3);
  const json content = json::parse(std::ifstream(bundle(worker)));
  EXPECT_EQ(content["end"], "DEVICE_LOST");
  EXPECT_TRUE(content["model"]["hash"].is_string()) << content["model"];
  EXPECT_EQ(content["generated"]["count"], 2);
}

TEST_F(Recorded, ARequestThatAskedIsTheSameOnEveryBackend) {
  Worker worker(flags({"--record-prompts", "--kv-memory", "131072", "--ctx", "256"}));
  std::vector<std::unique_ptr<TestClient>> others;  // that take its pages away
  for (const char* name : {"a", "b", "c", "d"}) {
    others.push_back(std::make_unique<TestClient>(worker.http()));
    others.back()->request("POST", "/execute", job(name, 150).dump());
  }
  const std::vector<json> events = execute(worker.http(), asking("asked", 120));
  ASSERT_EQ(events.back()["tokens_out"], 120) << events.back();
  for (const auto& other : others) EXPECT_EQ(other->read_head().status, 200);
  for (const auto& other : others) EXPECT_EQ(other->last_event()["type"], "end");
  const fs::path path = bundle(worker);
  EXPECT_THAT(path.filename().string(), testing::StartsWith("asked-"));
  EXPECT_EQ(n_bundles(), 1u) << "the others did not ask";
  const json content = json::parse(std::ifstream(path));
  std::vector<int32_t> ids;
  for (const json& event : events)
    if (event["type"] == "token" && static_cast<size_t>(event["i"]) == ids.size()) ids.push_back(event["id"]);
  EXPECT_EQ(content["generated"]["tokens"], json(ids));

  for (const char* on : {"", "--on cpu --threads 1", "--on reference"}) {
    const Result result = replay(path, on);
    EXPECT_EQ(result.exit_code, 0) << result.output;
    EXPECT_THAT(result.output, HasSubstr("reproduced: 120 tokens, the same logits bit for bit\n"));
  }
  const json told = json::parse(replay(path, "--json --on reference").output);
  EXPECT_EQ(told["reproduced"], true);
  EXPECT_EQ(told["replayed"]["backend"], "reference");
  EXPECT_EQ(told["difference"], nullptr);
}

TEST_F(Recorded, WhatWasChangedInABundleIsFound) {
  Worker worker(flags({"--record-prompts"}));
  execute(worker.http(), asking("asked", 9));
  const fs::path path = bundle(worker);
  const Result hash = replay(changed(path, [](json& b) { b["logits_hashes"][4] = "0123456789abcdef"; }));
  EXPECT_EQ(hash.exit_code, 1);
  EXPECT_THAT(hash.output,
              AllOf(HasSubstr("not reproduced: 4 tokens are the same, then the logits at position"),
                    HasSubstr("recorded hash 0123456789abcdef, got "), HasSubstr("the bundle was changed")));
  const Result token = replay(changed(path, [](json& b) { b["generated"]["tokens"][2] = 299; }));
  EXPECT_EQ(token.exit_code, 1);
  EXPECT_THAT(token.output, AllOf(HasSubstr("not reproduced: 2 tokens are the same, then the logits at position"),
                                  HasSubstr("recorded is token 299, got token "), HasSubstr("the bundle was changed")));
  const Result prompt = replay(changed(path, [](json& b) { b["prompt"]["tokens"][0] = 5; }));
  EXPECT_EQ(prompt.exit_code, 2);
  EXPECT_THAT(prompt.output, HasSubstr("changed.json: prompt: digest: expected "));

  // As from a machine that computes otherwise from the sixth row on: here both backends agree.
  const fs::path other = changed(path, [](json& b) {
    for (size_t i = 5; i < 9; ++i) b["logits_hashes"][i] = fmt::format("{:016x}", i);
  });
  const Result elsewhere = replay(other);
  EXPECT_EQ(elsewhere.exit_code, 1);
  EXPECT_THAT(elsewhere.output,
              AllOf(HasSubstr("5 tokens are the same"), Not(HasSubstr("was changed")),
                    HasSubstr("cpu (a) and reference (b), fed the same "), HasSubstr("agree in every step")));
  const json told = json::parse(replay(other, "--json --on reference").output);
  EXPECT_EQ(told["reproduced"], false);
  EXPECT_EQ(told["difference"]["what"], "logits");
  EXPECT_EQ(told["difference"]["index"], 5);
  EXPECT_EQ(told["difference"]["recorded"], "0000000000000005");
  EXPECT_THAT(told["steps"]["sentence"].get<std::string>(), HasSubstr("reference (a) and cpu (b)"));
}

TEST_F(Recorded, WhatCannotBeComparedIsRefusedByName) {
  Worker worker(flags({"--record-prompts"}));
  execute(worker.http(), asking("asked", 3));
  const fs::path path = bundle(worker);
  const auto refused = [&](auto change, const std::string& flags = "") {
    const Result result = replay(changed(path, change), flags);
    EXPECT_EQ(result.exit_code, 2) << result.output;
    return result.output;
  };
  EXPECT_THAT(refused([](json& b) { b["model"]["plan_hash"] = "0000000000000001"; }),
              HasSubstr("not comparable: plan_hash: recorded is 0000000000000001, here is "));
  EXPECT_THAT(refused([](json& b) { b["run"]["numerics"] = "fast"; }),
              HasSubstr("numerics: recorded is fast, here is exact"));
  EXPECT_THAT(refused([](json& b) { b["run"]["backend"] = "abacus"; }),
              HasSubstr("recorded on abacus: there is no backend abacus; --on names another"));
  EXPECT_THAT(refused([](json& b) { b["run"]["backend"] = "metal"; }), HasSubstr("recorded on metal: --backend metal"));
  EXPECT_THAT(refused([](json& b) { b["model"]["path"] = "/nowhere"; }),
              HasSubstr("--model says where the bundle's model tiny-llama is here"));
  EXPECT_THAT(refused([](json& b) { b["llorch_bundle"] = 7; }), HasSubstr("llorch_bundle: expected 2"));
  EXPECT_THAT(refused([](json& b) {
                b["logits_hashes"].clear(),
                    b["generated"] = {{"count", 0}, {"digest", "0000000000000000"}, {"tokens", json::array()}};
              }),
              HasSubstr("nothing was sampled before its end (MAX_TOKENS)"));
  EXPECT_THAT(llorch("replay /nowhere.json").output, HasSubstr("/nowhere.json: cannot open"));
  const json told =
      json::parse(shell(fmt::format("{} replay {} --json 2>/dev/null", LLORCH_EXECUTABLE,
                                    changed(path, [](json& b) { b["model"]["hash"] = "00000000000000ff"; }).string()))
                      .output);
  EXPECT_EQ(told["comparable"], false);
  EXPECT_EQ(told["mismatches"][0]["field"], "model_hash");
}

// Whatever is there by then, it is not what the worker has loaded.
TEST_F(Recorded, FilesThatHaveChangedSinceAreNotTakenForTheModel) {
  const Damaged model("llorch_e2e_replay_changed");
  Worker worker(flags({"--record-prompts", "--model", model.path()}));
  worker.http();
  fs::resize_file(fs::path(model.path()) / "model.safetensors", 100);
  EXPECT_EQ(execute_to_end(worker.http(), asking("asked", 3))["stop_reason"], "MAX_TOKENS");
  const fs::path path = bundle(worker);
  const json content = json::parse(std::ifstream(path));
  EXPECT_EQ(content["model"]["hash"], nullptr);
  EXPECT_EQ(content["model"]["no_hash"], "the model's files have changed since they were loaded");
  const Result result = replay(path, std::string("--model ") + kTinyModel);
  EXPECT_EQ(result.exit_code, 0) << result.output;
  EXPECT_THAT(result.output, HasSubstr("not recorded (the model's files have changed since they were loaded)"));
}

TEST_F(Recorded, ARecorderCanBeOffAndItsFolderWrong) {
  Worker worker({"--record", "off"});
  EXPECT_EQ(ask(worker.http(), "POST", "/execute", asking("asked", 3).dump()).status, 400);
  for (const char* flags : {"--record-dir /proc/llorch", "--record off --record-prompts"}) {
    const Result result = llorch(fmt::format("serve --port 0 --model {} {}", kTinyModel, flags));
    EXPECT_EQ(result.exit_code, 2) << flags;
    EXPECT_THAT(result.output, HasSubstr("[INVALID_INPUT]"));
  }
}

// By default bundles go where XDG says, and a home that takes none is no reason not to serve.
TEST_F(Recorded, TheDefaultFolderIsTheUsersOwn) {
  const std::string state = ::getenv("XDG_STATE_HOME");
  {
    Worker worker;
    execute(worker.http(), asking("asked", 3));
    EXPECT_THAT(bundle(worker).string(), testing::StartsWith(state + "/llorch/bundles/asked-"));
  }
  ::setenv("XDG_STATE_HOME", "/proc/nowhere", 1);
  Worker worker;
  EXPECT_EQ(ask(worker.http(), "POST", "/execute", asking("asked", 3).dump()).status, 400);
  ::setenv("XDG_STATE_HOME", state.c_str(), 1);
  EXPECT_THAT(awaited_log_line(worker, "flight recorder off")["error"].get<std::string>(), HasSubstr("/proc/nowhere"));
}

TEST_F(Recorded, ARunIsRecordedToo) {
  fs::create_directory(folder_);
  const fs::path path = folder_ / "run.json";
  const std::string run =
      std::string("run ") + kTinyModel + " --prompt 'Once upon a time' --max-tokens 30 --record " + path.string();
  EXPECT_EQ(llorch(run).exit_code, 0);
  for (const char* on : {"", " --on reference"}) {
    const Result result = replay(path, std::string("--prompt 'Once upon a time'") + on);
    EXPECT_EQ(result.exit_code, 0) << result.output;
    EXPECT_THAT(result.output, HasSubstr("the same logits bit for bit"));
  }
  const Damaged model("llorch_e2e_replay_run");
  model.poke_nan("model.layers.1.mlp.down_proj.weight", 3);
  EXPECT_EQ(
      llorch(fmt::format("run {} --prompt x --record-prompts --record {}", model.path(), path.string())).exit_code, 1);
  const Result result = replay(path);
  EXPECT_EQ(result.exit_code, 0) << result.output;
  EXPECT_THAT(result.output, HasSubstr("reproduced: before any token NUMERIC_FAULT in layers.1.ffn_out at position 0"));
}

}  // namespace
}  // namespace llorch
