#include "app/trace_options.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <optional>

#include "app/commands.h"
#include "app/model_path.h"
#include "format/checkpoint_hash.h"
#include "plan/hash.h"
#include "trace/step_selection.h"
#include "trace/trace_file.h"

namespace llorch {
namespace {

StepSet read_steps(const TraceOptions& options, const Plan& plan) {
  std::optional<LayerRange> layers;
  if (!options.layers.empty()) layers = parse_layers(options.layers);
  return select_steps(plan, options.steps, layers);
}

TraceInfo info_of(const LoadedModel& model, const TraceOptions& options) {
  TraceInfo info;
  info.model = model.config.name;
  info.model_hash = fmt::format("{:016x}", hash_tensors(Checkpoint::open(find_model(options.load.model))));
  info.plan_hash = fmt::format("{:016x}", plan_hash(model.program->plan()));
  info.backend = model.backend.name;
  info.device = model.backend.device;
  info.numerics = model.numerics;
  info.build = "llorch " LLORCH_VERSION;
  return info;
}

// The tokens of a run as the flags say.
SequenceRun read_run(const TraceOptions& options, const Tokenizer& tokenizer) {
  if (options.tokens.empty() && options.prompt.empty())
    throw InputError("expected the tokens of a run: --tokens or --prompt");
  SequenceRun run;
  run.tokens = options.tokens.empty() ? tokenizer.encode(options.prompt, true) : options.tokens;
  if (options.n_decode > 0 && options.n_decode >= run.tokens.size())
    throw InputError(fmt::format("--decode {}: expected less than the {} tokens, so that a prompt is left",
                                 options.n_decode, run.tokens.size()));
  run.n_prompt = static_cast<uint32_t>(run.tokens.size()) - options.n_decode;
  return run;
}

}  // namespace

void add_trace_options(CLI::App& command, TraceOptions& options) {
  CLI::Option* tokens =
      command.add_option("--tokens", options.tokens, "Token ids, as 1,2,3")->delimiter(',')->allow_extra_args(false);
  command.add_option("--prompt", options.prompt, "The text whose tokens are run")->excludes(tokens);
  command.add_option("--decode", options.n_decode, "How many of the last tokens are decoded one at a time")
      ->capture_default_str();
  command
      .add_option("--steps", options.steps, "Steps by name, * stands for any text: layers.*.attn_out (default: all)")
      ->delimiter(',')
      ->allow_extra_args(false);
  add_kv_dtype_option(command, options.load);
  command.add_option("--layers", options.layers, "Steps of these layers only, as A..B");
}

TracedModel load_traced(const TraceOptions& options) {
  TracedModel traced;
  traced.model = load(options.load, Logger::to_nowhere(), Numerics::kExact);
  const Program& program = *traced.model.program;
  try {
    traced.run = read_run(options, *traced.model.tokenizer);
    traced.steps = read_steps(options, program.plan());
    check_run(traced.run, program.plan(), program.options());
  } catch (const Error& error) {
    throw InputError(error.what());
  }
  traced.info = info_of(traced.model, options);
  return traced;
}

void trace_model(const TraceOptions& options, const std::filesystem::path& out) {
  const TracedModel traced = load_traced(options);
  write_trace(out, *traced.model.program, traced.run, traced.steps, traced.info);
}

}  // namespace llorch
