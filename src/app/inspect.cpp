// llorch inspect: what is in a model's files.
#include <fmt/format.h>

#include <CLI/CLI.hpp>

#include "app/commands.h"
#include "app/load.h"
#include "app/model_path.h"
#include "format/checkpoint.h"
#include "format/describe.h"

namespace llorch {

void add_inspect(CLI::App& app) {
  auto model = std::make_shared<std::string>();
  CLI::App* command = app.add_subcommand("inspect", "Print what is in a model's files");
  command->add_option("MODEL", *model, "A directory, a file, or an installed model's name (default: the embedded one)");
  command->callback(
      [model] { blame_files([&] { fmt::print("{}", describe(Checkpoint::open(find_model(*model)))); }); });
}

}  // namespace llorch
