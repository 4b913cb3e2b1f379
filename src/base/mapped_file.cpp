#include "base/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <utility>

#include "base/error.h"

namespace llorch {
namespace {

// Closes the descriptor on every path: the mapping outlives it.
struct Descriptor {
  int value;
  ~Descriptor() {
    if (value >= 0) ::close(value);
  }
};

}  // namespace

MappedFile::MappedFile(const std::filesystem::path& path) : path_(path) {
  // O_NONBLOCK: opening a pipe must be refused below, not wait here for a writer.
  const Descriptor fd{::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)};
  if (fd.value < 0) fail("{}: cannot open: {}", path.string(), std::strerror(errno));
  struct stat info {};
  if (::fstat(fd.value, &info) != 0) fail("{}: cannot stat: {}", path.string(), std::strerror(errno));
  if (!S_ISREG(info.st_mode)) fail("{}: expected a regular file", path.string());
  if (info.st_size == 0) return;
  const size_t size = static_cast<size_t>(info.st_size);
  void* address = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, fd.value, 0);
  if (address == MAP_FAILED) fail("{}: cannot map {} bytes: {}", path.string(), size, std::strerror(errno));
  bytes_ = {static_cast<const std::byte*>(address), size};
}

MappedFile::~MappedFile() {
  if (!bytes_.empty()) ::munmap(const_cast<std::byte*>(bytes_.data()), bytes_.size());
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : path_(std::move(other.path_)), bytes_(std::exchange(other.bytes_, {})) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(bytes_, other.bytes_);
  return *this;
}

bool MappedFile::contains(std::span<const std::byte> part) const {
  const auto begin = reinterpret_cast<uintptr_t>(bytes_.data());
  const auto at = reinterpret_cast<uintptr_t>(part.data());
  return at >= begin && at - begin <= bytes_.size() && part.size() <= bytes_.size() - (at - begin);
}

void MappedFile::prefetch(std::span<const std::byte> part) const { advise(part, MADV_WILLNEED); }

void MappedFile::release(std::span<const std::byte> part) const { advise(part, MADV_DONTNEED); }

void MappedFile::advise(std::span<const std::byte> part, int advice) const {
  LLORCH_CHECK(contains(part), "{}: {} bytes outside the mapping", path_.string(), part.size());
  if (part.empty()) return;
  // Rounded outwards to pages: a neighbour's page that goes with it is read again from the page cache.
  const auto page = static_cast<uintptr_t>(::sysconf(_SC_PAGESIZE));
  const auto offset = static_cast<uintptr_t>(part.data() - bytes_.data());
  const uintptr_t begin = offset / page * page;
  auto* address = const_cast<std::byte*>(bytes_.data()) + begin;
  (void)::madvise(address, offset + part.size() - begin, advice);  // a hint: its failure changes no result
}

}  // namespace llorch
