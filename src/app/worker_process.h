// A worker as a child process: started, watched, and stopped whatever happens.
#pragma once

#include <sys/types.h>

#include <atomic>
#include <cstdint>
#include <deque>
#include <filesystem>
#include <fstream>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

namespace llorch {

// `llorch serve`. The destructor ends it: SIGTERM, SIGKILL after ten seconds; on Linux it also ends when the thread
// that started it does.
class WorkerProcess {
 public:
  // Arguments after `serve`. Its log goes to the file if one is named; the last lines are kept. Throws Error.
  WorkerProcess(const std::filesystem::path& llorch, const std::vector<std::string>& arguments,
                const std::string& log_file = {});
  ~WorkerProcess();
  WorkerProcess(const WorkerProcess&) = delete;
  WorkerProcess& operator=(const WorkerProcess&) = delete;

  // The port that the worker listens on, once it says so in its log.
  std::optional<uint16_t> port() const;
  bool alive() const { return alive_; }
  void send_signal(int number);

  // Waits for its end: the exit code, or 128 and the signal that ended it.
  int wait();
  std::string last_log_lines() const;

 private:
  bool ended();
  void read_log(int fd);
  void take_line(const std::string& line);

  pid_t pid_ = -1;
  std::optional<int> exit_code_;
  std::atomic<bool> alive_{true};  // its log is open
  std::atomic<uint16_t> port_{0};
  std::ofstream log_file_;
  mutable std::mutex mutex_;
  std::deque<std::string> last_lines_;
  std::thread reader_;
};

}  // namespace llorch
