// llorch trace: what the steps of a model made of given tokens, written to a file.
#include <fmt/format.h>

#include <CLI/CLI.hpp>

#include "app/commands.h"
#include "app/trace_options.h"
#include "trace/trace_file.h"

namespace llorch {
namespace {

void trace(const TraceOptions& options, const std::string& out) {
  trace_model(options, out);
  const TraceFile file(out);
  const TraceInfo& info = file.info();
  fmt::print("{}: {} steps of {} tokens, {} prefilled and {} decoded, {} on {}, {} bytes\n", out, file.steps().size(),
             info.tokens.size(), info.n_prompt, info.tokens.size() - info.n_prompt, info.model, info.backend,
             std::filesystem::file_size(out));
}

}  // namespace

void add_trace(CLI::App& app) {
  auto options = std::make_shared<TraceOptions>();
  auto out = std::make_shared<std::string>();
  CLI::App* command = app.add_subcommand("trace", "Write what a model's steps make of given tokens to a file");
  options->load.max_sequences = 1;
  add_load_options(*command, options->load, true);
  add_trace_options(*command, *options);
  command->add_option("--out", *out, "The file to write (SafeTensors)")->required();
  command->callback([options, out] { trace(*options, *out); });
}

}  // namespace llorch
