// Bundles on disk: one file each, whole or not there, for its owner's eyes only; and a folder of them that stays small.
#pragma once

#include <cstdint>
#include <filesystem>

#include "trace/bundle.h"

namespace llorch {

inline constexpr uint64_t kMaxBundleBytes = 16 << 20;

// Replaces what stood there. Mode 0600; written beside its place and moved there when it is on the disk. Throws Error.
void write_bundle(const std::filesystem::path& path, const Bundle& bundle);

// Throws Error: absent, larger than kMaxBundleBytes, or as parse_bundle() does.
Bundle read_bundle(const std::filesystem::path& path);

struct FolderBounds {
  size_t n_bundles = 50;                // of each kind
  uint64_t bytes = uint64_t{64} << 20;  // of each kind
};

// A folder that recorders share. A bundle's name says its kind (failed, asked), time, process and request:
// "failed-20260101T120000.000Z-4711-17.json". Kinds are bounded apart, so that nobody can drive failures out by asking.
class BundleFolder {
 public:
  // Makes the folder, mode 0700, if it is not there. Throws Error if it is none, or if nothing can be written in it.
  BundleFolder(std::filesystem::path folder, const FolderBounds& bounds);

  // Where the bundle is now. Then removes the oldest bundles of its kind until the bounds hold; files of other names
  // are left alone. Throws Error.
  std::filesystem::path add(const Bundle& bundle) const;

  const std::filesystem::path& path() const { return folder_; }

 private:
  void prune(const std::string& kind) const;

  std::filesystem::path folder_;
  FolderBounds bounds_;
};

}  // namespace llorch
