// llorch story: the client of a worker that runs.
#include <CLI/CLI.hpp>

#include "app/commands.h"
#include "app/signals.h"
#include "app/story_client.h"

namespace llorch {

void add_story(CLI::App& app) {
  struct Options {
    uint16_t port = 9876;
    StoryOptions story;
  };
  auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand("story", "Ask a running worker for a story and print it as it streams");
  command->add_option("--port", options->port, "The worker's port on 127.0.0.1")->capture_default_str();
  add_story_options(*command, options->story);
  command->callback([options] {
    const StopSignals signals;
    tell_story(options->port, options->story, signals.stopped(), [] { return true; });
  });
}

}  // namespace llorch
