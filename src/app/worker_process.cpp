// fork and exec; the worker's stdout is a pipe that a thread reads.
#include "app/worker_process.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>
#ifdef __linux__
#include <sys/prctl.h>
#endif

#include <cerrno>
#include <chrono>
#include <cstring>
#include <nlohmann/json.hpp>

#include "base/error.h"

namespace llorch {
namespace {

constexpr size_t kKeptLines = 12;
constexpr std::chrono::seconds kStopTimeout{10};

// In the child, between fork and exec: nothing here may allocate.
[[noreturn]] void become_worker(const char* executable, char* const* arguments, int log_fd, pid_t parent) {
#ifdef __linux__
  prctl(PR_SET_PDEATHSIG, SIGTERM);
  if (getppid() != parent) _exit(1);  // it died before the line above
#else
  static_cast<void>(parent);
#endif
  dup2(log_fd, STDOUT_FILENO);
  execv(executable, arguments);
  _exit(127);
}

}  // namespace

WorkerProcess::WorkerProcess(const std::filesystem::path& llorch, const std::vector<std::string>& arguments,
                             const std::string& log_file) {
  if (!log_file.empty()) {
    log_file_.open(log_file, std::ios::trunc);
    if (!log_file_) fail("--log-file {}: cannot be written", log_file);
  }
  const std::string executable = llorch.string();
  std::vector<std::string> words = {executable, "serve"};
  words.insert(words.end(), arguments.begin(), arguments.end());
  std::vector<char*> argv;
  argv.reserve(words.size() + 1);
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);

  int fds[2];
  if (pipe(fds) != 0) fail("no pipe for the worker's log: {}", std::strerror(errno));
  fcntl(fds[0], F_SETFD, FD_CLOEXEC);
  fcntl(fds[1], F_SETFD, FD_CLOEXEC);
  const pid_t parent = getpid();
  pid_ = fork();
  if (pid_ == 0) become_worker(executable.c_str(), argv.data(), fds[1], parent);
  close(fds[1]);
  if (pid_ < 0) {
    close(fds[0]);
    fail("the worker does not start: {}", std::strerror(errno));
  }
  reader_ = std::thread([this, fd = fds[0]] { read_log(fd); });
}

WorkerProcess::~WorkerProcess() {
  send_signal(SIGTERM);
  const auto deadline = std::chrono::steady_clock::now() + kStopTimeout;
  while (!ended()) {
    if (std::chrono::steady_clock::now() > deadline) send_signal(SIGKILL);
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  reader_.join();
}

void WorkerProcess::send_signal(int number) {
  if (!exit_code_) kill(pid_, number);
}

bool WorkerProcess::ended() {
  int status = 0;
  if (!exit_code_ && waitpid(pid_, &status, WNOHANG) == pid_) {
    exit_code_ = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
  }
  return exit_code_.has_value();
}

int WorkerProcess::wait() {
  while (!ended()) std::this_thread::sleep_for(std::chrono::milliseconds(5));
  return *exit_code_;
}

std::optional<uint16_t> WorkerProcess::port() const {
  const uint16_t port = port_;
  return port != 0 ? std::optional(port) : std::nullopt;
}

std::string WorkerProcess::last_log_lines() const {
  const std::lock_guard lock(mutex_);
  std::string out;
  for (const std::string& line : last_lines_) out += line + "\n";
  return out;
}

void WorkerProcess::read_log(int fd) {
  std::string text;
  char bytes[4096];
  for (ssize_t n = 0; (n = read(fd, bytes, sizeof bytes)) > 0 || (n < 0 && errno == EINTR);) {
    if (n > 0) text.append(bytes, static_cast<size_t>(n));
    for (size_t end = text.find('\n'); end != std::string::npos; end = text.find('\n')) {
      take_line(text.substr(0, end));
      text.erase(0, end + 1);
    }
  }
  close(fd);
  alive_ = false;
}

void WorkerProcess::take_line(const std::string& line) {
  if (log_file_.is_open()) log_file_ << line << std::endl;
  {
    const std::lock_guard lock(mutex_);
    last_lines_.push_back(line);
    if (last_lines_.size() > kKeptLines) last_lines_.pop_front();
  }
  const auto json = nlohmann::json::parse(line, nullptr, false);
  if (!json.is_object() || !json.contains("fields")) return;
  const auto& fields = json["fields"];
  if (fields.value("message", "") != "HTTP server listening") return;
  const std::string address = fields.value("addr", "");
  port_ = static_cast<uint16_t>(std::atoi(address.c_str() + address.rfind(':') + 1));
}

}  // namespace llorch
