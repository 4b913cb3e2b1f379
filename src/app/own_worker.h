// Commands that start a worker, ask it something, and stop it.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace CLI {
class App;
}

namespace llorch {

// Flags of `llorch serve` that are passed on, as they were given.
struct OwnWorkerOptions {
  std::string model, backend, numerics, device = "0", port = "0", threads, log_level, log_file;
  std::vector<std::string> more;
};

void add_own_worker_options(CLI::App& command, OwnWorkerOptions& options);

// Starts a worker on 127.0.0.1, calls use(its port, whether it is alive) once it listens, and stops it, whatever
// happens. If use throws an Error the worker's last log lines go to stderr, unless `stop` is true.
void with_own_worker(const OwnWorkerOptions& options, const std::atomic<bool>& stop,
                     const std::function<void(uint16_t port, const std::function<bool()>& alive)>& use);

}  // namespace llorch
