// llorch inference: a worker of its own, a story, and the end of the worker.
#include <CLI/CLI.hpp>
#include <chrono>
#include <cstdio>
#include <thread>

#include "app/commands.h"
#include "app/model_path.h"
#include "app/signals.h"
#include "app/story_client.h"
#include "app/worker_process.h"

namespace llorch {
namespace {

struct InferenceOptions {
  std::string model, backend, numerics, device = "0", port = "0", threads, log_level, log_file;
  StoryOptions story;

  std::vector<std::string> serve_arguments() const {
    std::vector<std::string> out = {"--port", port, "--device", device};
    const auto add = [&out](const char* flag, const std::string& value) {
      if (!value.empty()) out.insert(out.end(), {flag, value});
    };
    add("--model", model);
    add("--backend", backend);
    add("--numerics", numerics);
    add("--threads", threads);
    add("--log-level", log_level);
    return out;
  }
};

uint16_t wait_for_port(const WorkerProcess& worker, const std::atomic<bool>& stop) {
  while (true) {
    if (const auto port = worker.port()) return *port;
    if (stop) fail("interrupted");
    if (!worker.alive()) fail("the worker ended before it listened");
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
}

void inference(const InferenceOptions& options) {
  const StopSignals signals;  // before the worker: from here on its end is ours to see to
  WorkerProcess worker(own_executable(), options.serve_arguments(), options.log_file);
  try {
    const uint16_t port = wait_for_port(worker, signals.stopped());
    tell_story(port, options.story, signals.stopped(), [&worker] { return worker.alive(); });
  } catch (const Error&) {
    if (!signals.stopped()) std::fprintf(stderr, "The worker's last log lines:\n%s", worker.last_log_lines().c_str());
    throw;
  }
}

}  // namespace

void add_inference(CLI::App& app) {
  auto options = std::make_shared<InferenceOptions>();
  CLI::App* command = app.add_subcommand("inference", "Start a worker, print a story as it streams, stop the worker");
  command->add_option("--model", options->model, "Model (default: the embedded one)");
  command->add_option("--backend", options->backend, "Backend (default: the best one that is present)");
  command->add_option("--device", options->device, "Device")->capture_default_str();
  command->add_option("--numerics", options->numerics, "exact or fast");
  command->add_option("--threads", options->threads, "Threads (default: one for each processor)");
  command->add_option("--port", options->port, "The worker's port (0: a free one)")->capture_default_str();
  command->add_option("--log-level", options->log_level, "The worker's log level");
  command->add_option("--log-file", options->log_file,
                      "Where the worker's log goes (default: nowhere, unless it fails)");
  add_story_options(*command, options->story);
  command->callback([options] { inference(*options); });
}

}  // namespace llorch
