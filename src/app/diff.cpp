// llorch diff: two traces, or two backends that are traced now, held against each other step by step.
#include "trace/diff.h"

#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <fstream>

#include "app/commands.h"
#include "app/model_path.h"
#include "app/trace_options.h"
#include "format/checkpoint.h"
#include "format/checkpoint_hash.h"
#include "format/printable.h"
#include "trace/diff_html.h"
#include "trace/diff_json.h"
#include "trace/diff_text.h"
#include "trace/diff_traces.h"
#include "trace/local.h"

namespace llorch {
namespace {

struct DiffOptions {
  TraceOptions trace;
  std::string a, b;
  bool local = false, json = false;
  std::string html;
};

bool is_backend(const std::string& side) {
  return side == "cpu" || side == "reference" || side == "cuda" || side == "metal";
}

TraceFile open_trace(const std::string& path) {
  std::error_code ignored;
  if (!std::filesystem::exists(path, ignored))
    throw InputError(fmt::format("{}: no such trace file, and no backend: expected a file, cpu or reference", path));
  try {
    return TraceFile(path);
  } catch (const Error& error) {
    throw InputError(error.what());
  }
}

// A file that goes away with this.
class TemporaryFile {
 public:
  explicit TemporaryFile(const std::string& name)
      : path_(std::filesystem::temp_directory_path() / fmt::format("llorch-diff-{}-{}", ::getpid(), name)) {}
  ~TemporaryFile() {
    std::error_code ignored;
    std::filesystem::remove(path_, ignored);
  }
  TemporaryFile(const TemporaryFile&) = delete;
  TemporaryFile& operator=(const TemporaryFile&) = delete;

  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

TraceOptions on_backend(TraceOptions options, const std::string& backend) {
  options.load.backend = backend;
  if (backend != "cuda") options.load.numerics.clear();  // --numerics fast is for the side that has it
  return options;
}

// The mapping keeps the file alive.
TraceFile trace_backend(const TraceOptions& options, const std::string& backend) {
  const TemporaryFile file(backend);
  trace_model(on_backend(options, backend), file.path());
  return TraceFile(file.path());
}

// What the flags leave open is as in the trace that a backend is held against.
TraceOptions as_in(const TraceFile& file, TraceOptions options) {
  const TraceInfo& info = file.info();
  if (options.tokens.empty() && options.prompt.empty()) {
    options.tokens = info.tokens;
    options.n_decode = static_cast<uint32_t>(info.tokens.size()) - info.n_prompt;
  }
  if (options.steps.empty() && options.layers.empty() && info.numerics != "outside")
    for (const TracedRows& rows : file.steps()) options.steps.push_back(rows.step);
  const bool is_ours = info.kv_dtype == "f16" || info.kv_dtype == "f32";
  if (options.load.kv_dtype.empty() && is_ours) options.load.kv_dtype = info.kv_dtype;
  return options;
}

// Writes why the traces cannot be compared. Exit code 2.
[[noreturn]] void refuse(const std::vector<Mismatch>& mismatches, const DiffOptions& options) {
  std::string text;
  for (const Mismatch& one : mismatches)
    text += fmt::format("{}{}: a has {}, b has {}", text.empty() ? "" : "; ", one.field, one.a, one.b);
  if (options.json) fmt::print("{}\n", to_json(mismatches).dump(2));
  throw InputError("not comparable: " + text);
}

// Before a model is run because of a trace, whether it is the trace's.
void check_model(const TraceFile& file, bool file_is_a, const DiffOptions& options) {
  const std::string& want = file.info().model_hash;
  const std::filesystem::path model = find_model(options.trace.load.model);
  std::string got;
  try {
    got = fmt::format("{:016x}", hash_tensors(Checkpoint::open(model)));
  } catch (const Error& error) {
    throw InputError(error.what());
  }
  if (want.empty() || got == want) return;
  const std::string of_file = fmt::format("{} ({})", printable(want), printable(file.info().model));
  const std::string of_model = fmt::format("{} ({})", got, model.string());
  refuse({{"model_hash", file_is_a ? of_file : of_model, file_is_a ? of_model : of_file}}, options);
}

DiffReport diff_sides(const DiffOptions& options) {
  const bool of_a = is_backend(options.a), of_b = is_backend(options.b);
  TraceOptions run = options.trace;
  std::optional<TraceFile> a, b;
  if (!of_a) a = open_trace(options.a);
  if (!of_b) b = open_trace(options.b);
  if (a.has_value() != b.has_value()) {
    check_model(a ? *a : *b, a.has_value(), options);
    run = as_in(a ? *a : *b, run);
  }
  if (of_a) a = trace_backend(run, options.a);
  if (of_b) b = trace_backend(run, options.b);
  if (const auto found = mismatches(*a, *b); !found.empty()) refuse(found, options);
  return diff_traces(*a, *b);
}

DiffReport diff_each_step(const DiffOptions& options) {
  for (const std::string& side : {options.a, options.b})
    if (!is_backend(side)) throw InputError(fmt::format("--local: expected two backends, got the file {}", side));
  TracedModel b = load_traced(on_backend(options.trace, options.b));
  const TracedModel a = load_traced(on_backend(options.trace, options.a));
  const Plan& plan = b.model.program->plan();
  const Recording truth = record_sequence(*b.model.program, b.run, StepSet(plan.steps.size(), true));
  const Checkpoint checkpoint = Checkpoint::open(find_model(options.trace.load.model));
  const WeightSource source = source_of(checkpoint);
  const CompileOptions& compile = b.model.program->options();
  DiffReport report;
  report.a = a.info;
  report.b = b.info;
  for (TraceInfo* info : {&report.a, &report.b}) {
    info->tokens = b.run.tokens;
    info->n_prompt = b.run.n_prompt;
    info->kv_dtype = to_string(compile.kv.dtype);
  }
  report.local = true;
  report.exact = a.info.numerics == "exact" && b.info.numerics == "exact";
  for (size_t i = 0; i < plan.steps.size(); ++i) report.b.steps.push_back(traced_step(plan, i));
  const BoundConditions bounds = bound_conditions(report.b, report.a);
  report.steps = diff_local(
      *a.model.device, *b.model.device,
      {plan, source, b.run, compile, truth, report.exact ? nullptr : &bounds, a.model.program->options().numerics},
      b.steps);
  report.first = first_outside(report.steps);
  return report;
}

void write_html(const std::string& path, const DiffReport& report) {
  std::ofstream out(path, std::ios::binary);
  out << to_html(report);
  out.close();
  if (!out) throw InputError(fmt::format("--html {}: cannot be written", path));
}

void diff(const DiffOptions& options) {
  DiffReport report = options.local ? diff_each_step(options) : diff_sides(options);
  report.name_a = options.a;
  report.name_b = options.b;
  if (options.json) {
    fmt::print("{}\n", to_json(report).dump(2));
  } else {
    fmt::print("{}", to_text(report));
  }
  std::fflush(stdout);
  if (!options.html.empty()) write_html(options.html, report);
  if (!report.same()) throw CLI::RuntimeError(1);
}

}  // namespace

void add_diff(CLI::App& app) {
  auto options = std::make_shared<DiffOptions>();
  CLI::App* command = app.add_subcommand("diff",
                                         "Compare two traces, or two backends, step by step: exit code 0 equal or "
                                         "within bounds, 1 different, 2 not comparable");
  command->add_option("A", options->a, "What is looked at: a trace file, or cpu or reference, which is traced now")
      ->required();
  command->add_option("B", options->b, "What it is held against: the same")->required();
  options->trace.load.max_sequences = 1;
  add_load_options(*command, options->trace.load, false);
  command->remove_option(command->get_option("--backend"));
  add_trace_options(*command, options->trace);
  command->add_flag("--local", options->local, "Feed each step of A what B fed it, so that no error hides another");
  command->add_flag("--json", options->json, "Print JSON");
  command->add_option("--html", options->html, "Write a page with a picture to this file");
  command->callback([options] { diff(*options); });
}

}  // namespace llorch
