// llorch plan: a model's forward pass, one line a step; or what it takes of memory.
#include "plan/plan.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>

#include "app/commands.h"
#include "app/load.h"
#include "app/memory_plan.h"
#include "app/model_path.h"
#include "format/checkpoint.h"
#include "model/model.h"

namespace llorch {
namespace {

struct PlanFlags {
  LoadOptions load;
  bool memory = false;
};

void print_memory(const LoadOptions& options) {
  std::unique_ptr<Backend> device;
  std::optional<MemoryPlace> place = place_without_device(options);
  if (!place) {
    device = make_backend(options);
    place = place_of(*device);
    place->numerics = numerics_of(options, *device, Numerics::kFast);
  }
  const Model model = blame_files([&] { return load_model(Checkpoint::open(find_model(options.model)), 1); });
  const auto print = [&](const MemoryPlace& there) {
    const MemoryPlan plan = plan_memory(options, model.plan, model.config.context, there);
    fmt::print("{} on {}: {}\n{} positions of a sequence, {} sequences in a step of up to {} rows\n{}",
               model.config.name, there.backend.name, there.backend.device, plan.context, plan.compile.max_logit_rows,
               plan.compile.max_rows, to_text(plan, there));
  };
  try {
    print(*place);
  } catch (const CodedError& error) {
    if (error.code() != ErrorCode::kVramOom && error.code() != ErrorCode::kOutOfPages) throw;
    MemoryPlace boundless = *place;  // what is refused is shown too
    boundless.memory.reset();
    print(boundless);
    throw;
  }
}

}  // namespace

void add_plan(CLI::App& app) {
  auto flags = std::make_shared<PlanFlags>();
  CLI::App* command = app.add_subcommand(
      "plan", "Print a model's forward pass: a line a step, with shapes and dtypes; or, before loading, its memory");
  command->add_option("MODEL", flags->load.model,
                      "A directory, a file, or an installed model's name (default: the embedded one)");
  command->add_flag("--memory", flags->memory, "What `serve` would allocate with the flags below, and what there is");
  add_backend_options(*command, flags->load);
  add_memory_options(*command, flags->load);
  add_kv_dtype_option(*command, flags->load);
  add_max_running_option(*command, flags->load);
  for (CLI::Option* option : command->get_options())
    if (option->get_name() != "MODEL" && option->get_name() != "--memory" && option != command->get_help_ptr())
      option->needs("--memory");
  flags->load.self_test = true;
  command->callback([flags] {
    if (flags->memory) return print_memory(flags->load);
    blame_files([&] { fmt::print("{}", to_text(load_model(Checkpoint::open(find_model(flags->load.model))).plan)); });
  });
}

}  // namespace llorch
