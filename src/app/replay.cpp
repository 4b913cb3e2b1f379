// llorch replay: a bundle's request run again, on its backend or another, and held against what was recorded.
#include "trace/replay.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>

#include "app/commands.h"
#include "app/load.h"
#include "app/model_path.h"
#include "engine/request_failure.h"
#include "format/checkpoint_hash.h"
#include "format/printable.h"
#include "model/model.h"
#include "plan/hash.h"
#include "trace/bundle_file.h"
#include "trace/diff_json.h"
#include "trace/diff_text.h"
#include "trace/excerpt.h"
#include "trace/lockstep.h"

namespace llorch {
namespace {

using Json = nlohmann::ordered_json;

// Multiply-adds of a reference that nobody asked for: half a minute.
constexpr uint64_t kMaxWork = 20'000'000'000;

struct ReplayFlags {
  LoadOptions load;  // backend: --on
  std::string bundle, prompt;
  std::vector<int32_t> tokens;
  bool json = false;
};

std::string hex(uint64_t hash) { return fmt::format("{:016x}", hash); }

// The recorded model as it is here.
struct ModelHere {
  std::filesystem::path path;
  Checkpoint checkpoint;
  Model model;
  TensorHashes hashes;

  WeightSource source() const { return source_of(checkpoint); }
};

ModelHere open_model(const Bundle& bundle, const ReplayFlags& flags) {
  const bool is_given = !flags.load.model.empty();
  std::filesystem::path path;
  try {
    path = find_model(is_given ? flags.load.model : bundle.origin.model_path);
  } catch (const InputError& error) {
    if (is_given) throw;
    throw InputError(fmt::format("{}; --model says where the bundle's model {} is here", error.what(),
                                 printable(bundle.origin.model)));
  }
  return blame_files([&] {
    Checkpoint checkpoint = Checkpoint::open(path);
    const uint32_t most = read_config(checkpoint).context;
    Model model = load_model(checkpoint, std::min(most, bundle.n_positions()));
    TensorHashes hashes = *hash_each_tensor(checkpoint, [] { return true; });
    return ModelHere{path, std::move(checkpoint), std::move(model), std::move(hashes)};
  });
}

// Which tensors are not the same: the first of them by name, and how many more.
std::string changed_tensors(const std::map<std::string, uint64_t>& recorded,
                            const std::map<std::string, uint64_t>& here) {
  std::vector<std::string> changed;
  for (const auto& [name, hash] : recorded)
    if (const auto at = here.find(name); at == here.end() || at->second != hash) changed.push_back(name);
  for (const auto& [name, hash] : here)
    if (recorded.count(name) == 0) changed.push_back(name);
  if (changed.empty()) return {};
  const size_t others = changed.size() - 1;
  return fmt::format("{}{}", printable(changed.front()), others == 0 ? "" : fmt::format(" and {} others", others));
}

// What must be the same for bits to be comparable: a is recorded, b is here.
std::vector<Mismatch> mismatches(const Bundle& bundle, const ModelHere& model) {
  const BundleOrigin& origin = bundle.origin;
  std::vector<Mismatch> found;
  if (origin.numerics != "exact") found.push_back({"numerics", printable(origin.numerics), "exact"});
  if (origin.model_hash && *origin.model_hash != model.hashes.all) {
    const std::string changed = changed_tensors(origin.weights, model.hashes.each);
    found.push_back({"model_hash", fmt::format("{} ({})", hex(*origin.model_hash), printable(origin.model)),
                     fmt::format("{} ({}){}", hex(model.hashes.all), model.path.string(),
                                 changed.empty() ? "" : ", another " + changed)});
  }
  if (const uint64_t here = plan_hash(model.model.plan); here != origin.plan_hash)
    found.push_back({"plan_hash", hex(origin.plan_hash), hex(here)});
  if (bundle.n_positions() > model.model.plan.context())
    found.push_back({"positions", std::to_string(bundle.n_positions()),
                     fmt::format("a context of {}", model.model.plan.context())});
  return found;
}

[[noreturn]] void refuse(const std::vector<Mismatch>& mismatches, const ReplayFlags& flags) {
  std::string text;
  Json json = Json::array();
  for (const Mismatch& one : mismatches) {
    text += fmt::format("{}{}: recorded is {}, here is {}", text.empty() ? "" : "; ", one.field, one.a, one.b);
    json.push_back({{"field", one.field}, {"recorded", one.a}, {"here", one.b}});
  }
  if (flags.json) fmt::print("{}\n", Json{{"comparable", false}, {"mismatches", json}}.dump(2));
  throw InputError("not comparable: " + text);
}

// The bundle's own, or those of the flags if they are the recorded ones.
std::vector<int32_t> prompt_of(const Bundle& bundle, const ReplayFlags& flags, const Checkpoint& checkpoint) {
  const uint32_t n = bundle.record.n_prompt;
  if (flags.tokens.empty() && flags.prompt.empty()) {
    if (!bundle.redacted) return {bundle.record.tokens.begin(), bundle.record.tokens.begin() + n};
    throw InputError(
        fmt::format("{}: its prompt of {} tokens is redacted: give it with --prompt or --tokens", flags.bundle, n));
  }
  std::vector<int32_t> tokens =
      flags.tokens.empty() ? Tokenizer::load(checkpoint)->encode(flags.prompt, true) : flags.tokens;
  if (tokens.size() != n || tokens_digest(tokens) != bundle.prompt_digest)
    throw InputError(fmt::format("{}: this is not the recorded prompt: expected {} tokens of digest {}, got {} of {}",
                                 flags.tokens.empty() ? "--prompt" : "--tokens", n, hex(bundle.prompt_digest),
                                 tokens.size(), hex(tokens_digest(tokens))));
  return tokens;
}

Bundle read(const ReplayFlags& flags) {
  Bundle bundle;
  try {
    bundle = read_bundle(flags.bundle);
  } catch (const Error& error) {
    throw InputError(error.what());
  }
  const bool fails = bundle.record.failure && is_of_the_run(*bundle.record.failure);
  if (bundle.record.logits_hashes.empty() && !fails)
    throw InputError(fmt::format("not comparable: {}: nothing was sampled before its end ({})", flags.bundle,
                                 end_text(bundle.record)));
  return bundle;
}

std::unique_ptr<Backend> backend_named(const std::string& name, const ReplayFlags& flags) {
  LoadOptions options = flags.load;
  options.backend = name;
  return make_backend(options);
}

// --on, or the recorded one.
std::unique_ptr<Backend> replaying_backend(const Bundle& bundle, const ReplayFlags& flags) {
  if (!flags.load.backend.empty()) return backend_named(flags.load.backend, flags);
  const std::string& recorded = bundle.origin.backend;
  const char* const known[] = {"cpu", "reference", "cuda", "metal"};
  try {
    if (std::find(std::begin(known), std::end(known), recorded) == std::end(known))
      throw InputError(fmt::format("there is no backend {}", printable(recorded)));
    return backend_named(recorded, flags);
  } catch (const InputError& error) {
    throw InputError(fmt::format("{}: recorded on {}: {}; --on names another backend to replay it on", flags.bundle,
                                 printable(recorded), error.what()));
  }
}

// A backend with the model on it.
class Side {
 public:
  Side(std::unique_ptr<Backend> backend, const ModelHere& model)
      : plan_(model.model.plan), backend_(std::move(backend)), weights_(backend_->place(plan_, model.source())) {}

  BackendInfo info() const { return backend_->info(); }
  std::unique_ptr<Program> compile(const CompileOptions& options) const {
    return backend_->compile(plan_, weights_, options);
  }

 private:
  const Plan& plan_;
  std::unique_ptr<Backend> backend_;
  std::shared_ptr<const PlacedWeights> weights_;
};

// What a look at the steps of two backends gave.
struct StepsFound {
  std::string sentence;
  std::optional<StepDiff> step;
};

// Against the recorded backend, or the reference where the replay ran on that one itself.
StepsFound look_at_steps(const Bundle& bundle, const ReplayFlags& flags, const ModelHere& model, const Side& side,
                         const SequenceRun& run) {
  const std::string subject = side.info().name, &recorded = bundle.origin.backend;
  const std::string name = recorded != subject ? recorded : subject == "reference" ? "cpu" : "reference";
  const bool asked = name == recorded || subject == "reference";
  if (!asked && work_of_row(model.model.plan) * run.tokens.size() > kMaxWork)
    return {"the model is too large to run the reference beside it unasked: `llorch doctor` looks at its steps", {}};
  try {
    const Side other(backend_named(name, flags), model);
    const CompileOptions options = replay_options(bundle);
    const auto a = side.compile(options), b = other.compile(options);
    const auto step = first_difference(*a, *b, run);
    const std::string both =
        fmt::format("{} (a) and {} (b), fed the same {} tokens here", subject, name, run.tokens.size());
    if (!step)
      return {both +
                  ", agree in every step: the recording's machine, build or moment was another, or a fusion is wrong "
                  "(llorch doctor)",
              {}};
    return {fmt::format("{}, differ first at {}", both, difference_text(*step)), step};
  } catch (const Error& error) {
    return {fmt::format("the steps were not compared with those of {}: {}", printable(name), with_causes(error)), {}};
  }
}

struct Outcome {
  BackendInfo on;
  std::string verdict;
  std::optional<ReplayDifference> difference;
  std::optional<StepsFound> steps;
  std::optional<FailEvent> failure;  // of the replay
};

// Whether steps may tell why: a device that refuses, or a sampler, has nothing to do with them.
bool is_of_numbers(const ReplayDifference& difference, const SequenceRecord& recorded, const SequenceRecord& got) {
  if (difference.what == ReplayDifference::What::kLogits) return !difference.record_changed;
  const auto is_numeric = [](const SequenceRecord& record) {
    return record.failure && record.failure->code == ErrorCode::kNumericFault;
  };
  return difference.what == ReplayDifference::What::kFailure && (is_numeric(recorded) || is_numeric(got));
}

Outcome run_again(const Bundle& bundle, const ReplayFlags& flags, const ModelHere& model, const Side& side,
                  const std::vector<int32_t>& prompt) {
  Outcome out;
  out.on = side.info();
  const SequenceRecord got = replay(side.compile(replay_options(bundle)), bundle, prompt, out.on.device);
  out.failure = got.failure;
  out.difference = first_difference(bundle, got);
  out.verdict = verdict_text(bundle, out.difference);
  if (!out.difference || !is_of_numbers(*out.difference, bundle.record, got)) return out;
  SequenceRun run;
  run.tokens.assign(got.tokens.begin(), got.tokens.begin() + out.difference->position + 1);
  run.n_prompt = got.n_prompt;
  out.steps = look_at_steps(bundle, flags, model, side, run);
  return out;
}

void print_head(const Bundle& bundle, const ReplayFlags& flags, const ModelHere& model, const BackendInfo& on) {
  const BundleOrigin& origin = bundle.origin;
  fmt::print("bundle  {}: {}, recorded {} by {} on {}, {}\n", flags.bundle, end_text(bundle.record),
             printable(bundle.recorded_at), printable(origin.build), printable(origin.backend),
             printable(origin.device));
  fmt::print("model   {}: hash {}, plan {}\n", model.path.string(),
             origin.model_hash
                 ? hex(model.hashes.all) + ", the recorded one"
                 : fmt::format("{}, not recorded ({})", hex(model.hashes.all), printable(origin.no_model_hash)),
             hex(origin.plan_hash));
  fmt::print("replay  llorch {} on {}, {}\n\n", LLORCH_VERSION, on.name, on.device);
  std::fflush(stdout);
}

void print_json(const Bundle& bundle, const Outcome& outcome) {
  Json difference = nullptr, steps = nullptr;
  if (const auto& d = outcome.difference)
    difference = {{"what", to_string(d->what)}, {"index", d->index}, {"position", d->position},
                  {"recorded", d->recorded},    {"got", d->got},     {"record_changed", d->record_changed}};
  if (const auto& found = outcome.steps)
    steps = {{"sentence", found->sentence}, {"first", found->step ? to_json(*found->step) : Json(nullptr)}};
  const BundleOrigin& origin = bundle.origin;
  const Json json = {
      {"comparable", true},
      {"reproduced", !outcome.difference},
      {"verdict", outcome.verdict},
      {"recorded", {{"build", origin.build}, {"backend", origin.backend}, {"device", origin.device}}},
      {"replayed", {{"build", "llorch " LLORCH_VERSION}, {"backend", outcome.on.name}, {"device", outcome.on.device}}},
      {"model_hash_checked", origin.model_hash.has_value()},
      {"tokens", bundle.n_generated},
      {"end", end_text(bundle.record)},
      {"difference", std::move(difference)},
      {"steps", std::move(steps)}};
  fmt::print("{}\n", json.dump(2));
}

// Exit code 1, by CLI::RuntimeError, if the run differs: all is said by then.
void replay(const ReplayFlags& flags) {
  const Bundle bundle = read(flags);
  std::unique_ptr<Backend> backend = replaying_backend(bundle, flags);
  const ModelHere model = open_model(bundle, flags);
  if (const auto found = mismatches(bundle, model); !found.empty()) refuse(found, flags);
  const std::vector<int32_t> prompt = prompt_of(bundle, flags, model.checkpoint);
  if (!flags.json) print_head(bundle, flags, model, backend->info());
  const Side side(std::move(backend), model);
  const Outcome outcome = run_again(bundle, flags, model, side, prompt);
  if (flags.json) {
    print_json(bundle, outcome);
  } else {
    fmt::print("{}\n", outcome.verdict);
    if (outcome.steps) fmt::print("{}\n", outcome.steps->sentence);
    if (outcome.difference && outcome.failure) fmt::print("the replay: {}\n", with_causes(*outcome.failure));
  }
  if (outcome.difference) throw CLI::RuntimeError(1);
}

}  // namespace

void add_replay(CLI::App& app) {
  auto flags = std::make_shared<ReplayFlags>();
  CLI::App* command = app.add_subcommand(
      "replay", "Run a recorded request again: exit code 0 the same bits, 1 different, 2 not comparable");
  command->add_option("BUNDLE", flags->bundle, "A bundle of the flight recorder")->required();
  command->add_option("--model", flags->load.model, "The bundle's model (default: where it was recorded)");
  command->add_option("--on", flags->load.backend, "Backend (default: the recorded one)")
      ->check(CLI::IsMember({"cpu", "cuda", "metal", "reference"}));
  command->add_option("--device", flags->load.device, "Device of the backend")->check(CLI::NonNegativeNumber);
  command->add_option("--threads", flags->load.threads, "Threads (default: one for each processor)")
      ->check(CLI::Range(1, 1024));
  CLI::Option* tokens = command->add_option("--tokens", flags->tokens, "The prompt of a redacted bundle, as 1,2,3")
                            ->delimiter(',')
                            ->allow_extra_args(false);
  command->add_option("--prompt", flags->prompt, "The same as text")->excludes(tokens);
  command->add_flag("--json", flags->json, "Print JSON");
  command->callback([flags] { replay(*flags); });
}

}  // namespace llorch
