// llorch inference: a worker of its own, a story, and the end of the worker.
#include <CLI/CLI.hpp>

#include "app/commands.h"
#include "app/own_worker.h"
#include "app/signals.h"
#include "app/story_client.h"

namespace llorch {

void add_inference(CLI::App& app) {
  struct Options {
    OwnWorkerOptions worker;
    StoryOptions story;
  };
  auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand("inference", "Start a worker, print a story as it streams, stop the worker");
  add_own_worker_options(*command, options->worker);
  add_story_options(*command, options->story);
  command->callback([options] {
    const StopSignals signals;  // before the worker: from here on its end is ours to see to
    with_own_worker(options->worker, signals.stopped(), [&](uint16_t port, const std::function<bool()>& alive) {
      tell_story(port, options->story, signals.stopped(), alive);
    });
  });
}

}  // namespace llorch
