#include "trace/bundle_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <regex>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/mapped_file.h"
#include "trace/bundle_json.h"

namespace llorch {
namespace {

namespace fs = std::filesystem;

// Left by a process that died while it wrote.
constexpr std::chrono::hours kOldTemporary{1};

[[noreturn]] void fail_with_errno(const fs::path& path, const char* what) {
  const int error = errno;
  fail("{}: {}: {}", path.string(), what, std::strerror(error));
}

// Gone with this unless it is kept.
class TemporaryFile {
 public:
  explicit TemporaryFile(const fs::path& beside)
      : path_(beside.parent_path() / fmt::format(".{}.{}.tmp", beside.filename().string(), ::getpid())) {
    ::unlink(path_.c_str());
    fd_ = ::open(path_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd_ < 0) fail_with_errno(path_, "cannot be made");
  }
  ~TemporaryFile() {
    if (fd_ >= 0) ::close(fd_);
    if (!path_.empty()) ::unlink(path_.c_str());
  }
  TemporaryFile(const TemporaryFile&) = delete;
  TemporaryFile& operator=(const TemporaryFile&) = delete;

  void write(std::string_view bytes) {
    while (!bytes.empty()) {
      const ssize_t n = ::write(fd_, bytes.data(), bytes.size());
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) fail_with_errno(path_, "cannot be written");
      bytes.remove_prefix(static_cast<size_t>(n));
    }
  }

  // On the disk, and under its name.
  void keep_as(const fs::path& path) {
    if (::fsync(fd_) != 0) fail_with_errno(path_, "cannot be written");
    if (::close(std::exchange(fd_, -1)) != 0) fail_with_errno(path_, "cannot be written");
    if (::rename(path_.c_str(), path.c_str()) != 0) fail_with_errno(path, "cannot be written");
    path_.clear();
  }

 private:
  fs::path path_;
  int fd_ = -1;
};

std::string kind_of(const Bundle& bundle) { return bundle.record.failure ? "failed" : "asked"; }

// "2026-01-01T12:00:00.000Z" as "20260101T120000.000Z": no colons, which some file systems refuse.
std::string compact(std::string time) {
  time.erase(std::remove_if(time.begin(), time.end(), [](char c) { return c == '-' || c == ':'; }), time.end());
  return time;
}

}  // namespace

void write_bundle(const fs::path& path, const Bundle& bundle) {
  // Invalid UTF-8 (a path, a message of the system) must not throw here.
  const std::string text = to_json(bundle).dump(1, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
  TemporaryFile file(path);
  file.write(text);
  file.keep_as(path);
}

Bundle read_bundle(const fs::path& path) {
  const MappedFile file(path);
  const auto bytes = file.bytes();
  if (bytes.size() > kMaxBundleBytes)
    fail("{}: expected a bundle of {} bytes at most, got {}", path.string(), kMaxBundleBytes, bytes.size());
  return parse_bundle({reinterpret_cast<const char*>(bytes.data()), bytes.size()}, path.string());
}

BundleFolder::BundleFolder(fs::path folder, const FolderBounds& bounds) : folder_(std::move(folder)), bounds_(bounds) {
  std::error_code error;
  if (!fs::exists(folder_, error)) {
    if (folder_.has_parent_path()) fs::create_directories(folder_.parent_path(), error);
    if (::mkdir(folder_.c_str(), 0700) != 0 && errno != EEXIST) fail_with_errno(folder_, "cannot be made");
  }
  if (!fs::is_directory(folder_, error)) fail("{}: expected a folder", folder_.string());
  TemporaryFile probe(folder_ / "probe");
}

fs::path BundleFolder::add(const Bundle& bundle) const {
  const std::string kind = kind_of(bundle);
  fs::path path =
      folder_ / fmt::format("{}-{}-{}-{}.json", kind, compact(bundle.recorded_at), ::getpid(), bundle.record.id);
  write_bundle(path, bundle);
  prune(kind);
  return path;
}

// Other recorders may prune at the same time: what is gone already is no error.
void BundleFolder::prune(const std::string& kind) const {
  static const std::regex kName("(failed|asked)-[0-9]{8}T[0-9]{6}\\.[0-9]{3}Z-[0-9]+-[0-9]+\\.json");
  static const std::regex kTemporary("\\.(failed|asked)-[-0-9TZ.]+\\.json\\.[0-9]+\\.tmp");
  std::error_code ignored;
  std::vector<std::pair<std::string, uint64_t>> bundles;  // by time, newest first
  for (const fs::directory_entry& entry : fs::directory_iterator(folder_, ignored)) {
    const std::string name = entry.path().filename().string();
    if (!entry.is_regular_file(ignored)) continue;
    if (std::regex_match(name, kTemporary)) {
      const auto age = fs::file_time_type::clock::now() - entry.last_write_time(ignored);
      if (age > kOldTemporary) fs::remove(entry.path(), ignored);
    }
    if (name.rfind(kind + "-", 0) == 0 && std::regex_match(name, kName))
      bundles.emplace_back(name, entry.file_size(ignored));
  }
  std::sort(bundles.begin(), bundles.end(), std::greater<>());
  uint64_t bytes = 0;
  for (size_t i = 0; i < bundles.size(); ++i) {
    bytes += bundles[i].second;
    if (i > 0 && (i >= bounds_.n_bundles || bytes > bounds_.bytes)) fs::remove(folder_ / bundles[i].first, ignored);
  }
}

}  // namespace llorch
