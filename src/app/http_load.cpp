// llorch load: many clients at once through HTTP, and what they saw.
#include <fmt/format.h>

#include <algorithm>
#include <iostream>

#include "app/commands.h"
#include "app/http_load_client.h"
#include "app/http_load_prompts.h"
#include "app/http_load_report.h"
#include "app/load.h"
#include "app/model_path.h"
#include "app/own_worker.h"
#include "app/signals.h"
#include "app/worker_ready.h"
#include "format/checkpoint.h"

namespace llorch {
namespace {

constexpr uint32_t kMaxClients = 4096;

struct LoadFlags {
  std::string url, kv_memory;
  OwnWorkerOptions worker;  // of it, the model is used with --url too
  std::vector<uint32_t> clients = {1, 32, 256};
  uint32_t requests = 4;  // of each client
  uint32_t prompt_tokens = 128, max_tokens = 128;
  double temperature = 0.8;
  uint64_t seed = 42;
  bool json = false;
};

// One number of clients.
struct Stage {
  LoadSummary summary;
  size_t repeated = 0;               // request that was sent again, alone
  std::optional<size_t> differs_at;  // first token of it that was another one then
  LoadAnswer answer;                 // to it, under load
};

std::vector<LoadRequest> make_requests(const LoadFlags& flags, const Tokenizer& tokenizer, uint32_t clients) {
  std::vector<LoadRequest> out;
  const size_t count = size_t{clients} * flags.requests;
  uint64_t seed = flags.seed;
  for (std::string& prompt : make_prompts(tokenizer, count, flags.prompt_tokens, flags.seed)) {
    out.push_back({std::move(prompt), flags.prompt_tokens, flags.max_tokens, flags.temperature, seed++});
  }
  return out;
}

Stage run_stage(const LoadFlags& flags, const LoadTarget& target, const Tokenizer& tokenizer, uint32_t clients,
                const std::atomic<bool>& stop) {
  const std::vector<LoadRequest> requests = make_requests(flags, tokenizer, clients);
  const LoadRun run = run_load(target, requests, clients, stop);
  Stage stage;
  stage.summary = summarize(run, clients);
  if (stage.summary.errors > 0) return stage;
  stage.repeated = requests.size() / 2;
  stage.answer = run.answers[stage.repeated];
  const LoadRun again = run_load(target, {requests[stage.repeated]}, 1, stop);
  const LoadAnswer& alone = again.answers.front();
  if (!alone.error.empty())
    fail("request {} of {}, sent again alone: {}", stage.repeated, requests.size(), alone.error);
  const auto differs = std::mismatch(stage.answer.ids.begin(), stage.answer.ids.end(), alone.ids.begin()).first;
  if (differs != stage.answer.ids.end()) {
    stage.differs_at = static_cast<size_t>(differs - stage.answer.ids.begin());
  }
  return stage;
}

std::string what_was_asked(const LoadFlags& flags, const LoadAnswer& answer) {
  return fmt::format("{} on {}, numerics {}: prompts of {} tokens, {} tokens each, temperature {}\n", answer.model,
                     answer.backend, answer.numerics, flags.prompt_tokens, flags.max_tokens, flags.temperature);
}

std::string alone_line(const Stage& stage) {
  return fmt::format("{} clients: request {} has {} alone\n", stage.summary.clients, stage.repeated,
                     stage.differs_at ? fmt::format("other tokens, from token {} on,", *stage.differs_at)
                                      : std::string("the same tokens"));
}

void print(const LoadFlags& flags, const std::vector<Stage>& stages) {
  if (flags.json) {
    nlohmann::json runs = nlohmann::json::array();
    for (const Stage& stage : stages) {
      runs.push_back(to_json(stage.summary));
      if (stage.summary.errors == 0) runs.back()["same_alone"] = !stage.differs_at;
    }
    const LoadAnswer& answer = stages.front().answer;
    const nlohmann::json report = {{"model", answer.model},
                                   {"backend", answer.backend},
                                   {"numerics", answer.numerics},
                                   {"seed", flags.seed},
                                   {"prompt_tokens", flags.prompt_tokens},
                                   {"max_tokens", flags.max_tokens},
                                   {"requests_each", flags.requests},
                                   {"temperature", flags.temperature},
                                   {"runs", runs}};
    std::cout << report.dump(2) << "\n";
    return;
  }
  std::vector<LoadSummary> summaries;
  for (const Stage& stage : stages) summaries.push_back(stage.summary);
  std::cout << what_was_asked(flags, stages.front().answer) << load_table(summaries);
  for (const Stage& stage : stages) {
    if (stage.summary.errors == 0) std::cout << alone_line(stage);
  }
}

// Equal requests give equal tokens whatever else runs, in `exact`; in `fast` it is told and no failure.
void check(const Stage& stage) {
  const LoadSummary& s = stage.summary;
  if (s.errors > 0)
    fail("{} of {} requests failed with {} clients: {}", s.errors, s.requests, s.clients, s.first_error);
  if (stage.differs_at && stage.answer.numerics == "exact") {
    fail("with {} clients request {} had other tokens than alone, from token {} on", s.clients, stage.repeated,
         *stage.differs_at);
  }
}

void run_stages(const LoadFlags& flags, const LoadTarget& target, const std::atomic<bool>& stop) {
  const auto tokenizer = blame_files([&] { return Tokenizer::load(Checkpoint::open(find_model(flags.worker.model))); });
  std::vector<Stage> stages;
  for (const uint32_t clients : flags.clients) {
    stages.push_back(run_stage(flags, target, *tokenizer, clients, stop));
    if (stages.back().summary.errors > 0) break;
  }
  print(flags, stages);
  for (const Stage& stage : stages) check(stage);
}

void load_worker(LoadFlags flags) {
  constexpr std::chrono::seconds kReady{600};  // a large model on a slow disk
  const StopSignals signals;
  if (!flags.url.empty()) {
    LoadTarget target = parse_load_url(flags.url);
    target.bearer_token = api_token_of_environment();
    wait_until_ready(flags.url, std::chrono::seconds(10), signals.stopped(), [] { return true; });
    return run_stages(flags, target, signals.stopped());
  }
  const uint32_t most = *std::max_element(flags.clients.begin(), flags.clients.end());
  flags.worker.more = {"--max-running",     std::to_string(std::min(most, 1024u)),
                       "--max-waiting",     std::to_string(most),
                       "--max-connections", std::to_string(most + 16)};
  if (!flags.kv_memory.empty()) flags.worker.more.insert(flags.worker.more.end(), {"--kv-memory", flags.kv_memory});
  with_own_worker(flags.worker, signals.stopped(), [&](uint16_t port, const std::function<bool()>& alive) {
    LoadTarget target;
    target.host = "127.0.0.1";
    target.port = port;
    target.bearer_token = api_token_of_environment();
    wait_until_ready(fmt::format("http://127.0.0.1:{}", port), kReady, signals.stopped(), alive);
    run_stages(flags, target, signals.stopped());
  });
}

}  // namespace

void add_load(CLI::App& app) {
  auto flags = std::make_shared<LoadFlags>();
  CLI::App* command = app.add_subcommand("load", "Measure a worker with many clients at once, through HTTP");
  auto* url = command->add_option("--url", flags->url,
                                  "A worker that runs, as http://127.0.0.1:9876 (default: one of its own); --model "
                                  "must be the model that it serves");
  add_own_worker_options(*command, flags->worker);
  command->add_option("--kv-memory", flags->kv_memory, "Memory of the worker's KV pages, as 512MB or 4GB");
  for (const char* own :
       {"--backend", "--device", "--numerics", "--threads", "--port", "--log-level", "--log-file", "--kv-memory"})
    url->excludes(command->get_option(own));
  command->add_option("--clients", flags->clients, "Clients at once; several numbers: one after the other")
      ->delimiter(',')
      ->check(CLI::Range(1u, kMaxClients))
      ->capture_default_str();
  command->add_option("--requests", flags->requests, "Requests of each client")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  command->add_option("--prompt-tokens", flags->prompt_tokens, "Tokens of each prompt, BOS included")
      ->check(CLI::Range(1, 1 << 15))
      ->capture_default_str();
  command->add_option("--max-tokens", flags->max_tokens, "Tokens of each answer")
      ->check(CLI::Range(1, 2048))
      ->capture_default_str();
  command->add_option("--temperature", flags->temperature, "0: greedy")
      ->check(CLI::Range(0.0, 2.0))
      ->capture_default_str();
  command->add_option("--seed", flags->seed, "Of prompts and sampling; request n samples with seed + n")
      ->capture_default_str();
  command->add_flag("--json", flags->json, "Print JSON");
  command->callback([flags] { load_worker(*flags); });
}

}  // namespace llorch
