// llorch load: many clients at once through HTTP, and what they saw.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <iostream>
#include <iterator>

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
constexpr size_t kMaxRequests = 1 << 18;  // of one run: they and their answers are kept, 2 KB each as a rule
constexpr uint32_t kMaxRunning = 1024;    // of serve

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

uint32_t most_clients(const LoadFlags& flags) { return *std::max_element(flags.clients.begin(), flags.clients.end()); }

// Of the largest stage; the others have the first of them.
std::vector<LoadRequest> make_requests(const LoadFlags& flags) {
  const auto tokenizer = blame_files([&] { return Tokenizer::load(Checkpoint::open(find_model(flags.worker.model))); });
  const size_t count = size_t{most_clients(flags)} * flags.requests;
  if (count > kMaxRequests) {
    throw InputError(fmt::format("--clients and --requests: {} requests, {} at most", count, kMaxRequests));
  }
  std::vector<LoadRequest> out;
  uint64_t seed = flags.seed;
  for (std::string& prompt : make_prompts(*tokenizer, count, flags.prompt_tokens, flags.seed)) {
    out.push_back({std::move(prompt), flags.prompt_tokens, flags.max_tokens, flags.temperature, seed++});
  }
  return out;
}

Stage run_stage(const LoadTarget& target, const std::vector<LoadRequest>& requests, uint32_t clients,
                const std::atomic<bool>& stop) {
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
  std::transform(stages.begin(), stages.end(), std::back_inserter(summaries),
                 [](const Stage& stage) { return stage.summary; });
  if (summaries.front().errors == 0) std::cout << what_was_asked(flags, stages.front().answer);
  std::cout << load_table(summaries);
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

void run_stages(const LoadFlags& flags, const LoadTarget& target, const std::vector<LoadRequest>& requests,
                const std::atomic<bool>& stop) {
  std::vector<Stage> stages;
  for (const uint32_t clients : flags.clients) {
    const auto end = requests.begin() + static_cast<std::ptrdiff_t>(size_t{clients} * flags.requests);
    stages.push_back(run_stage(target, {requests.begin(), end}, clients, stop));
    if (stages.back().summary.errors > 0) break;
  }
  print(flags, stages);
  for (const Stage& stage : stages) check(stage);
}

LoadTarget with_token(LoadTarget target) {
  target.bearer_token = api_token_of_environment();
  return target;
}

void load_own_worker(LoadFlags flags, const std::vector<LoadRequest>& requests, const std::atomic<bool>& stop) {
  constexpr std::chrono::seconds kReady{600};  // a large model on a slow disk
  const uint32_t most = most_clients(flags);
  flags.worker.more = {"--max-running",     std::to_string(std::min(most, kMaxRunning)),
                       "--max-waiting",     std::to_string(most),
                       "--max-connections", std::to_string(most + 16)};
  if (!flags.kv_memory.empty()) flags.worker.more.insert(flags.worker.more.end(), {"--kv-memory", flags.kv_memory});
  with_own_worker(flags.worker, stop, [&](uint16_t port, const std::function<bool()>& alive) {
    const std::string url = fmt::format("http://127.0.0.1:{}", port);
    wait_until_ready(url, kReady, stop, alive);
    run_stages(flags, with_token(parse_load_url(url)), requests, stop);
  });
}

void load_worker(const LoadFlags& flags) {
  constexpr std::chrono::seconds kReady{2};  // it runs, or is just about to
  if (!(flags.temperature >= 0.0 && flags.temperature <= 2.0)) throw InputError("--temperature: expected 0 to 2");
  const std::optional<LoadTarget> target =
      flags.url.empty() ? std::nullopt : std::optional(with_token(parse_load_url(flags.url)));
  const std::vector<LoadRequest> requests = make_requests(flags);
  const StopSignals signals;
  if (!target) return load_own_worker(flags, requests, signals.stopped());
  wait_until_ready(flags.url, kReady, signals.stopped(), [] { return true; });
  run_stages(flags, *target, requests, signals.stopped());
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
  command->add_option("--temperature", flags->temperature, "0 to 2; 0: greedy")->capture_default_str();
  command->add_option("--seed", flags->seed, "Of prompts and sampling; request n samples with seed + n")
      ->capture_default_str();
  command->add_flag("--json", flags->json, "Print JSON");
  command->callback([flags] { load_worker(*flags); });
}

}  // namespace llorch
