// llorch as a user calls it: output, errors, exit codes, and no worker left behind.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "shell_for_test.h"
#include "worker_for_test.h"

namespace llorch {
namespace {

using testing::HasSubstr;
using testing::Not;

const std::string kModel = std::string(" --model ") + kTinyModel;

TEST(Commands, InferenceTellsAStoryAndStopsItsWorker) {
  const std::string log = testing::TempDir() + "/llorch_e2e_inference.log";
  const Result result = llorch("inference" + kModel + " --log-file " + log);
  EXPECT_EQ(result.exit_code, 0) << result.output;
  EXPECT_THAT(result.output, HasSubstr("Generated Story:\nOnce upon a time"));
  EXPECT_THAT(result.output, HasSubstr("50 tokens, "));
  EXPECT_THAT(result.output, HasSubstr("stop reason MAX_TOKENS"));
  EXPECT_THAT(shell("cat " + log).output, HasSubstr("worker stopped"));
}

TEST(Commands, InferenceWithoutTokensFailsWithTheRawResponse) {
  const Result result = llorch("inference" + kModel + " --prompt 'ends in Z'");
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_THAT(result.output, HasSubstr("no tokens came"));
  EXPECT_THAT(result.output, HasSubstr("\"stop_reason\":\"EOS\""));
}

TEST(Commands, InferenceSaysWhyTheWorkerDidNotStart) {
  const Result result = llorch("inference --model /nowhere/at/all");
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_THAT(result.output, HasSubstr("/nowhere/at/all"));
}

TEST(Commands, AWorkerEndsWithItsParentHoweverThatEnds) {
#ifdef __linux__
  const std::string log = testing::TempDir() + "/llorch_e2e_orphan.log";
  // The story is long enough for the kill to come first; the shell finds the worker's port in the log.
  const Result result = shell(
      "rm -f " + log + "; " + LLORCH_EXECUTABLE + " inference" + kModel +
      " --backend reference --max-tokens 1000 --log-file " + log +
      " >/dev/null & parent=$!; while ! grep -q 'request accepted' " + log +
      " 2>/dev/null; do sleep 0.02; done; kill -9 $parent; port=$(sed -n 's/.*127.0.0.1:\\([0-9]*\\).*/\\1/p' " + log +
      "); for i in $(seq 200); do curl -s -o /dev/null http://127.0.0.1:$port/health || exit 7; sleep 0.05; done");
  EXPECT_EQ(result.exit_code, 7) << "the worker still answers; " << result.output;
#else
  GTEST_SKIP() << "PR_SET_PDEATHSIG is Linux's";
#endif
}

TEST(Commands, StoryIsAClientOfAnyWorker) {
  Worker worker;
  const Result result = llorch(fmt::format("story --port {} --max-tokens 7", worker.http()));
  EXPECT_EQ(result.exit_code, 0) << result.output;
  EXPECT_THAT(result.output, HasSubstr("7 tokens, "));
  EXPECT_EQ(llorch(fmt::format("story --port {} --max-tokens 0", worker.http())).exit_code, 1);
}

TEST(Commands, RunContinuesAPromptAsTheWorkerDoes) {
  const Result run = llorch(std::string("run ") + kTinyModel +
                            " --prompt 'the owl said' --max-tokens 30 --temperature 0.8 --seed 5 --top-k 20");
  EXPECT_EQ(run.exit_code, 0) << run.output;
  EXPECT_THAT(run.output, HasSubstr("ms/token"));
  EXPECT_THAT(run.output, HasSubstr("% of the read roof"));
  EXPECT_THAT(run.output, HasSubstr("logits xxh3"));
  Worker worker;
  nlohmann::json body = job("same", 30, "the owl said");
  body.update({{"temperature", 0.8}, {"seed", 5}, {"top_k", 20}});
  const std::string text = text_of(execute(worker.http(), body));
  EXPECT_EQ(run.output.substr(0, run.output.find("\n\n")), "the owl said" + text)
      << "a sequence alone, without engine, pages or warm-up, gives the same tokens";
}

TEST(Commands, RunKeepsKeysAndValuesInTheAskedTypeOnBothBackends) {
  std::set<std::string> hashes;
  for (const std::string kv : {"f32", "f16", "q8_0"})
    for (const std::string backend : {"cpu", "reference"}) {
      const Result run = llorch(std::string("run ") + kTinyModel +
                                " --prompt 'the owl said' --max-tokens 20 --kv-dtype " + kv + " --backend " + backend);
      EXPECT_EQ(run.exit_code, 0) << run.output;
      hashes.insert(run.output.substr(run.output.find("logits xxh3")));
    }
  EXPECT_EQ(hashes.size(), 3u) << "one for each type";
}

TEST(Commands, BenchSaysNothingOfAMatrixRoofWhereThereIsNone) {
  const std::string call = "bench --backend cpu --shape tiny --prompt 8 --context 8 --tokens 2 --repeats 1";
  const Result text = llorch(call);
  EXPECT_EQ(text.exit_code, 0) << text.output;
  EXPECT_THAT(text.output, HasSubstr("f32 multiply-add"));
  EXPECT_THAT(text.output, HasSubstr("prefill 8"));
  EXPECT_THAT(text.output, Not(HasSubstr("matrix")));
  const Result json = llorch(call + " --json");
  EXPECT_EQ(json.exit_code, 0) << json.output;
  EXPECT_THAT(json.output, HasSubstr("f32_gflop_per_s"));
  EXPECT_THAT(json.output, Not(HasSubstr("matrix")));
}

TEST(Commands, InspectAndPlanPrintTheModel) {
  EXPECT_THAT(llorch(std::string("inspect ") + kTinyModel).output, HasSubstr("layers.1.ffn_down.weight"));
  EXPECT_THAT(llorch(std::string("plan ") + kTinyModel).output, HasSubstr("layers.1."));
}

TEST(Commands, MistakesOfTheCallerExitWithTwoAndOneLine) {
  for (const char* arguments :
       {"", "nothing", "serve --port 99999", "serve --backend tpu", "serve --backend cuda --device 99",
        "serve --device 99", "serve --gpu-memory-utilization 0", "serve --backend cpu --gpu-memory-utilization 0.5",
        "plan --ctx 5", "plan --memory --ctx 99999999", "plan --memory --backend metal", "serve --numerics fast",
        "serve --host nowhere", "serve --log-level loud", "serve --model /nowhere", "inspect /nowhere", "plan /nowhere",
        "run /nowhere --prompt x"}) {
    const Result result = llorch(arguments);
    EXPECT_EQ(result.exit_code, 2) << arguments;
    std::string errors;  // what is not a log line
    std::istringstream lines(result.output);
    for (std::string line; std::getline(lines, line);) {
      if (line.rfind("{\"timestamp\"", 0) != 0) errors += line + "\n";
    }
    EXPECT_EQ(errors.rfind("llorch: ", 0), 0u) << errors;
    EXPECT_EQ(std::count(errors.begin(), errors.end(), '\n'), 1) << errors;
  }
}

TEST(Commands, AContextThatDoesNotFitIsRefusedWithBothNumbers) {
  const Result result = llorch("serve" + kModel + " --ctx 1024 --kv-memory 100000");
  EXPECT_EQ(result.exit_code, 2);
  EXPECT_THAT(result.output, HasSubstr("KV pages: one sequence of 1024 positions needs"));
}

TEST(Commands, WhatDoesNotFitIsRefusedBeforeItIsLoadedWithBothNumbers) {
  const Result result = llorch("serve --port 0 --record off" + kModel + " --kv-memory 900000GB");
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_THAT(result.output, AllOf(HasSubstr("bytes of the system's memory (weights 275712, activations "),
                                   HasSubstr(" are free; use a smaller model"), HasSubstr("[VRAM_OOM]"),
                                   Not(HasSubstr("model loaded"))));
}

TEST(Commands, PlanTellsTheMemoryThatALoadTakes) {
  const Result result = llorch(fmt::format("plan {} --memory --backend cpu --ctx 128 --max-running 3", kTinyModel));
  EXPECT_EQ(result.exit_code, 0) << result.output;
  EXPECT_THAT(result.output, AllOf(HasSubstr("128 positions of a sequence, 3 sequences in a step of up to 512 rows"),
                                   HasSubstr("weights, bf16"), HasSubstr("128 of 64 positions, f16"),
                                   HasSubstr("available of the system's memory")));
  Worker worker({"--backend", "cpu", "--ctx", "128", "--max-running", "3"});
  EXPECT_EQ(worker.health()["kv_pages_total"], 128);
}

TEST(Commands, PlanTellsTheMemoryOfWhatDoesNotFitToo) {
  const Result result = llorch(fmt::format("plan {} --memory --backend cpu --kv-memory 900000GB", kTinyModel));
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_THAT(result.output, AllOf(HasSubstr("weights, bf16"), HasSubstr("together"), HasSubstr("are free"),
                                   testing::EndsWith("[VRAM_OOM]\n")));
}

TEST(Commands, RunTellsWhatTheLoadTook) {
  const Result result = llorch("run --prompt x --max-tokens 2 " + std::string(kTinyModel));
  EXPECT_THAT(result.output, testing::ContainsRegex("weights: 0.3 MB in [0-9]+ ms .*, device context in [0-9]+ ms"));
}

TEST(Commands, APortThatIsTakenIsAFailure) {
  Worker worker;
  const Result result = llorch(fmt::format("serve{} --port {}", kModel, worker.http()));
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_THAT(result.output, HasSubstr("cannot listen on 127.0.0.1"));
}

TEST(Commands, VersionAndHelpExitWithZero) {
  EXPECT_THAT(llorch("--version").output, HasSubstr("llorch "));
  EXPECT_EQ(llorch("--help").exit_code, 0);
  EXPECT_EQ(llorch("serve --help").exit_code, 0);
}

}  // namespace
}  // namespace llorch
