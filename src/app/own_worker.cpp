// The worker is this program's own file, run again.
#include "app/own_worker.h"

#include <CLI/CLI.hpp>
#include <chrono>
#include <cstdio>
#include <thread>

#include "app/model_path.h"
#include "app/worker_process.h"
#include "base/error.h"

namespace llorch {
namespace {

std::vector<std::string> serve_arguments(const OwnWorkerOptions& options) {
  std::vector<std::string> out = {"--port", options.port, "--device", options.device};
  const auto add = [&out](const char* flag, const std::string& value) {
    if (!value.empty()) out.insert(out.end(), {flag, value});
  };
  add("--model", options.model);
  add("--backend", options.backend);
  add("--numerics", options.numerics);
  add("--threads", options.threads);
  add("--log-level", options.log_level);
  out.insert(out.end(), options.more.begin(), options.more.end());
  return out;
}

uint16_t wait_for_port(const WorkerProcess& worker, const std::atomic<bool>& stop) {
  while (true) {
    if (const auto port = worker.port()) return *port;
    if (stop) fail("interrupted");
    if (!worker.alive()) fail("the worker ended before it listened");
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
}

}  // namespace

void add_own_worker_options(CLI::App& command, OwnWorkerOptions& options) {
  command.add_option("--model", options.model, "Model (default: the embedded one)");
  command.add_option("--backend", options.backend, "Backend (default: the best one that is present)");
  command.add_option("--device", options.device, "Device")->capture_default_str();
  command.add_option("--numerics", options.numerics, "exact or fast");
  command.add_option("--threads", options.threads, "Threads (default: one for each processor)");
  command.add_option("--port", options.port, "The worker's port (0: a free one)")->capture_default_str();
  command.add_option("--log-level", options.log_level, "The worker's log level");
  command.add_option("--log-file", options.log_file, "Where the worker's log goes (default: nowhere, unless it fails)");
}

void with_own_worker(const OwnWorkerOptions& options, const std::atomic<bool>& stop,
                     const std::function<void(uint16_t port, const std::function<bool()>& alive)>& use) {
  WorkerProcess worker(own_executable(), serve_arguments(options), options.log_file);
  try {
    const uint16_t port = wait_for_port(worker, stop);
    use(port, [&worker] { return worker.alive(); });
  } catch (const Error&) {
    if (!stop) std::fprintf(stderr, "The worker's last log lines:\n%s", worker.last_log_lines().c_str());
    throw;
  }
}

}  // namespace llorch
