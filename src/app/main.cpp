// llorch: one program, one subcommand each for serving, running and looking at models.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <exception>
#include <iostream>

#include "app/commands.h"
#include "engine/request_failure.h"

namespace {

int report(const std::string& message, int exit_code) {
  std::cout.flush();
  std::fprintf(stderr, "llorch: %s\n", message.c_str());
  return exit_code;
}

// What failed, its causes and its code, in one line.
int report(const std::exception& error) {
  const llorch::FailEvent failure = llorch::failure_of(error, llorch::ErrorCode::kCommandFailed);
  const llorch::ErrorInfo& info = llorch::info(failure.code);
  return report(fmt::format("{} [{}]", llorch::with_causes(failure), info.name), info.exit != 0 ? info.exit : 1);
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("An inference worker for Llama-family models.", "llorch");
  app.set_version_flag("--version", "llorch " LLORCH_VERSION);
  app.require_subcommand(1);
  llorch::add_serve(app);
  llorch::add_run(app);
  llorch::add_inspect(app);
  llorch::add_plan(app);
  llorch::add_bench(app);
  llorch::add_story(app);
  llorch::add_inference(app);
  llorch::add_trace(app);
  llorch::add_diff(app);
  llorch::add_doctor(app);
  llorch::add_replay(app);
  llorch::add_load(app);
  try {
    app.parse(argc, argv);
    return 0;
  } catch (const CLI::Success& help) {
    return app.exit(help);
  } catch (const CLI::RuntimeError& end) {  // a command that has said all in its output
    return end.get_exit_code();
  } catch (const CLI::ParseError& error) {
    return report(std::string(error.what()) + " (see llorch --help)",
                  llorch::info(llorch::ErrorCode::kInvalidInput).exit);
  } catch (const std::exception& error) {
    return report(error);
  }
}
