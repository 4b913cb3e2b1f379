// Real weights served end to end, when they are there: greedy tokens against transformers in float32.
#include <gtest/gtest.h>

#include <filesystem>

#include "worker_for_test.h"

namespace llorch {
namespace {

const std::string kModels = LLORCH_SOURCE_DIR "/../shared/models/";

TEST(RealModel, GreedyTokensAreThoseOfTheGoldenFile) {
  const std::string model = kModels + "SmolLM2-135M-Instruct.Q4_1.gguf";
  std::ifstream file(kModels + "SmolLM2-135M-Instruct.Q4_1.golden.json");
  if (!file || !std::filesystem::exists(model)) GTEST_SKIP() << "real weights are not in ../shared/models";
  const nlohmann::json golden = nlohmann::json::parse(file);
  ASSERT_EQ(golden["cases"].size(), 8u);

  WorkerProcess worker(LLORCH_EXECUTABLE, {"--port", "0", "--model", model, "--ctx", "1024"});
  ASSERT_TRUE(soon([&] { return worker.port() || !worker.alive(); }) && worker.port()) << worker.last_log_lines();
  std::vector<std::unique_ptr<TestClient>> clients;  // all at once: a batch must not change any of them
  for (const auto& one : golden["cases"]) {
    nlohmann::json body = job(one["name"], 64, one["prompt"]);
    body["temperature"] = 0;
    clients.push_back(std::make_unique<TestClient>(*worker.port()));
    clients.back()->request("POST", "/execute", body.dump());
  }
  for (size_t i = 0; i < clients.size(); ++i) {
    const auto& one = golden["cases"][i];
    SCOPED_TRACE(one["name"].get<std::string>());
    ASSERT_EQ(clients[i]->read_head().status, 200);
    const auto events = clients[i]->all_events();
    std::vector<int32_t> got = ids_of(events);
    std::vector<int32_t> expected = one["greedy_tokens"];
    const bool whole = one["comparable"] == expected.size();
    if (whole) {
      ASSERT_FALSE(events.empty());
      EXPECT_EQ(events.back()["stop_reason"], one["stopped_at_eos"].get<bool>() ? "EOS" : "MAX_TOKENS");
      if (expected.back() == 2) expected.pop_back();  // EOS has no event
    } else {
      expected.resize(one["comparable"]);
      ASSERT_GE(got.size(), expected.size());
      got.resize(expected.size());
    }
    EXPECT_EQ(got, expected);
    if (whole) {
      EXPECT_EQ(text_of(events).substr(0, 40), one["text"].get<std::string>().substr(0, 40));
    }
  }
}

}  // namespace
}  // namespace llorch
