// The flight recorder's flags, and what a model and a program say of themselves in a bundle.
#pragma once

#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "app/load.h"
#include "base/log.h"
#include "engine/engine.h"
#include "trace/bundle.h"
#include "trace/bundle_file.h"

namespace llorch {

struct RecordOptions {
  std::string record = "on";
  std::string folder;  // empty: the user's own, default_bundle_folder()
  bool prompts = false;
};

// --record, --record-dir, --record-prompts.
void add_record_options(CLI::App& command, RecordOptions& options);

// $XDG_STATE_HOME/llorch/bundles, else $HOME/.local/state/llorch/bundles; empty if the environment has neither.
std::filesystem::path default_bundle_folder();

// The folder of a worker's bundles, or nothing: --record off, or the default folder cannot be used, which is logged.
// Throws InputError if the folder of --record-dir cannot be used.
std::optional<BundleFolder> open_bundle_folder(const RecordOptions& options, const Logger& log);

// Files as they are now, so that a later look can tell whether they still are.
class FileStamps {
 public:
  explicit FileStamps(const std::vector<std::filesystem::path>& files);  // throws Error if one is absent
  bool unchanged() const;

 private:
  struct Stamp {
    std::filesystem::path path;
    uintmax_t bytes;
    std::filesystem::file_time_type written;
    bool operator==(const Stamp&) const = default;
  };
  static Stamp stamp(const std::filesystem::path& path);
  std::vector<Stamp> stamps_;
};

// What a model's bundles have in common, all but the hashes of its weights. model: as --model says it.
BundleOrigin origin_of(const LoadedModel& loaded, const std::string& model, const EngineOptions& engine);

// Reads the model for its hashes, if its files are still those that were loaded; else says why there are none.
void add_hashes(BundleOrigin& origin, const std::filesystem::path& model, const FileStamps& loaded,
                const std::function<bool()>& go_on);

}  // namespace llorch
