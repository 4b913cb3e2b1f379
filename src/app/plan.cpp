// llorch plan: a model's forward pass, one line a step.
#include "plan/plan.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>

#include "app/commands.h"
#include "app/load.h"
#include "app/model_path.h"
#include "format/checkpoint.h"
#include "model/model.h"

namespace llorch {

void add_plan(CLI::App& app) {
  auto model = std::make_shared<std::string>();
  CLI::App* command = app.add_subcommand("plan", "Print a model's forward pass: a line a step, with shapes and dtypes");
  command->add_option("MODEL", *model, "A directory, a file, or an installed model's name (default: the embedded one)");
  command->callback([model] {
    blame_files([&] { fmt::print("{}", to_text(load_model(Checkpoint::open(find_model(*model))).plan)); });
  });
}

}  // namespace llorch
