// llorch doctor: the debugging recipe on a model and a backend, a line a check, a verdict.
#include "trace/doctor.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <cstdio>
#include <map>

#include "app/commands.h"
#include "app/load.h"
#include "app/model_path.h"
#include "backend/reference/reference_backend.h"
#include "format/checkpoint_hash.h"
#include "model/model.h"
#include "plan/hash.h"
#include "trace/doctor_json.h"
#include "trace/excerpt.h"

namespace llorch {
namespace {

struct DoctorFlags {
  LoadOptions load;
  std::string prompt;
  bool json = false;
  DoctorOptions doctor;
};

// What is looked at.
struct Patient {
  Checkpoint checkpoint;
  Model model;
  std::string hash, plan_hash;
  std::map<std::string, size_t> bytes;  // of the weights, by type

  std::string dtypes_text() const {
    std::string text;
    for (const auto& [dtype, n] : bytes)
      text += fmt::format("{}{} {:.1f} MB", text.empty() ? "" : ", ", dtype, static_cast<double>(n) / 1e6);
    return text;
  }
};

Patient open_patient(DoctorFlags& flags) {
  Checkpoint checkpoint = Checkpoint::open(find_model(flags.load.model));
  if (!flags.prompt.empty()) {
    flags.doctor.tokens = Tokenizer::load(checkpoint)->encode(flags.prompt, true);
    if (flags.doctor.tokens.empty()) throw InputError("--prompt: it has no tokens");
  }
  // Sequences of an engine need one position more than those that are watched.
  const auto n = static_cast<uint32_t>(flags.doctor.tokens.size());
  const uint32_t most = read_config(checkpoint).context;
  Model model = load_model(checkpoint, std::min(most, std::max(n, flags.doctor.max_positions) + 1));
  Patient patient{std::move(checkpoint), std::move(model), {}, {}, {}};
  patient.hash = fmt::format("{:016x}", hash_tensors(patient.checkpoint));
  patient.plan_hash = fmt::format("{:016x}", plan_hash(patient.model.plan));
  for (const Weight& weight : patient.model.plan.weights)
    patient.bytes[std::string(to_string(weight.dtype))] += patient.checkpoint.at(weight.name).bytes.size();
  return patient;
}

std::string looked_at_text(const Plan& plan, const DoctorFlags& flags) {
  const Cut cut = choose_cut(plan, flags.doctor);
  std::string text = to_text(cut);
  if (cut.n_layers < cut.of_layers || cut.n_positions < cut.of_positions)
    text += fmt::format(", so that the reference has {:.1e} multiply-adds to do or less (a row of the model: {:.1e})",
                        static_cast<double>(flags.doctor.max_work), static_cast<double>(work_of_row(plan)));
  return text;
}

void print_head(const Patient& patient, const BackendInfo& subject, const BackendInfo& reference,
                const DoctorFlags& flags) {
  fmt::print("backend    {}: {}\n", subject.name, subject.device);
  fmt::print("against    {}: {}\n", reference.name, reference.device);
  fmt::print("model      {}, hash {}, plan {}\n", patient.model.config.name, patient.hash, patient.plan_hash);
  fmt::print("weights    {}\n", patient.dtypes_text());
  fmt::print("KV         {}\n", to_string(flags.doctor.kv_dtype));
  fmt::print("looked at  {}\n\n", looked_at_text(patient.model.plan, flags));
  std::fflush(stdout);
}

void print_check(const Check& check) {
  fmt::print("{}  {:<18} {:>6.0f} ms  {}\n", check.passed ? "ok  " : "FAIL", check.name, check.ms, check.sentence);
  std::fflush(stdout);
}

void print_json(const Patient& patient, const Diagnosis& diagnosis, const DoctorFlags& flags) {
  nlohmann::json out = to_json(diagnosis);
  out["build"] = "llorch " LLORCH_VERSION;
  out["model"] = {{"name", patient.model.config.name}, {"hash", patient.hash}, {"plan_hash", patient.plan_hash}};
  out["weight_bytes"] = patient.bytes;
  out["kv_dtype"] = to_string(flags.doctor.kv_dtype);
  out["looked_at"] = looked_at_text(patient.model.plan, flags);
  fmt::print("{}\n", out.dump(2));
}

// Throws CLI::RuntimeError with exit code 1 if the backend or the model is not healthy: all is said by then.
void doctor(DoctorFlags& flags) {
  if (flags.load.numerics == "fast")
    throw InputError("--numerics fast: doctor compares bits, which fast does not promise; llorch diff has its bounds");
  const std::unique_ptr<Backend> subject = make_backend(flags.load), reference = make_reference_backend();
  flags.doctor.kv_dtype = kv_dtype_of(flags.load);
  flags.doctor.engine.device = subject->info().device;
  const Patient patient = blame_files([&] {
    Patient opened = open_patient(flags);
    choose_cut(opened.model.plan, flags.doctor);  // are these tokens of the model?
    return opened;
  });
  if (!flags.json) {
    print_head(patient, subject->info(), reference->info(), flags);
    flags.doctor.on_check = print_check;
  }
  const WeightSource source = source_of(patient.checkpoint);
  const Diagnosis diagnosis = diagnose(*subject, *reference, patient.model.plan, source, flags.doctor);
  if (flags.json)
    print_json(patient, diagnosis, flags);
  else
    fmt::print("\n{}\n", diagnosis.verdict);
  if (!diagnosis.healthy()) throw CLI::RuntimeError(1);
}

}  // namespace

void add_doctor(CLI::App& app) {
  auto flags = std::make_shared<DoctorFlags>();
  CLI::App* command = app.add_subcommand("doctor", "Find out what is wrong with a backend or a model, by name");
  command->add_option("MODEL", flags->load.model,
                      "Model: a directory, a .safetensors or .gguf file, or an installed model's name (default: the "
                      "embedded model)");
  add_backend_options(*command, flags->load);
  add_kv_dtype_option(*command, flags->load);
  CLI::Option* tokens = command->add_option("--tokens", flags->doctor.tokens, "Token ids that are run, as 1,2,3")
                            ->delimiter(',')
                            ->allow_extra_args(false);
  command->add_option("--prompt", flags->prompt, "A text whose tokens are run (default: tokens of the vocabulary)")
      ->excludes(tokens);
  command->add_flag("--json", flags->json, "Print JSON");
  command->callback([flags] { doctor(*flags); });
}

}  // namespace llorch
