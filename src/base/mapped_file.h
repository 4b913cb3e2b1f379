// A file mapped read-only into memory.
#pragma once

#include <cstddef>
#include <filesystem>
#include <span>

namespace llorch {

// Move-only; the bytes stay at their address until destruction, also when the object moves. Whoever truncates the file
// meanwhile makes reads of the lost pages raise SIGBUS: that is the price of mapping, and no check here can pay it.
class MappedFile {
 public:
  // Throws Error naming the file: missing, unreadable, or not a regular file. An empty file maps to an empty span.
  explicit MappedFile(const std::filesystem::path& path);
  ~MappedFile();
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;

  const std::filesystem::path& path() const { return path_; }
  std::span<const std::byte> bytes() const { return bytes_; }

  // True if `part` lies inside this mapping.
  bool contains(std::span<const std::byte> part) const;

  // Starts reading the pages of `part` ahead (MADV_WILLNEED). Returns at once; a hint only.
  void prefetch(std::span<const std::byte> part) const;

  // Takes the pages of `part` out of this process's memory (MADV_DONTNEED); the next read faults them in again.
  void release(std::span<const std::byte> part) const;

 private:
  void advise(std::span<const std::byte> part, int advice) const;

  std::filesystem::path path_;
  std::span<const std::byte> bytes_;
};

}  // namespace llorch
