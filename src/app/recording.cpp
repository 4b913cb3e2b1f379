#include "app/recording.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdlib>

#include "app/model_path.h"
#include "format/checkpoint_hash.h"
#include "plan/hash.h"

namespace llorch {
namespace {

namespace fs = std::filesystem;

// A relative path means nothing elsewhere; a name does.
std::string lasting_path(const std::string& model) {
  std::error_code error;
  if (model.empty() || !fs::exists(model, error)) return model;
  return fs::absolute(model, error).string();
}

std::map<std::string, std::string> config_of(const ModelConfig& config) {
  std::map<std::string, std::string> out = {{"architecture", config.architecture}};
  const std::pair<const char*, uint32_t> sizes[] = {{"hidden", config.hidden},       {"ffn", config.ffn},
                                                    {"layers", config.n_layers},     {"heads", config.n_heads},
                                                    {"kv_heads", config.n_kv_heads}, {"head_dim", config.head_dim},
                                                    {"vocabulary", config.vocab},    {"context", config.context}};
  for (const auto& [name, value] : sizes) out[name] = std::to_string(value);
  return out;
}

}  // namespace

void add_record_options(CLI::App& command, RecordOptions& options) {
  command
      .add_option("--record", options.record,
                  "on: a request that fails, or asks for it, leaves a bundle that `llorch replay` runs again")
      ->check(CLI::IsMember({"on", "off"}))
      ->capture_default_str();
  command.add_option("--record-dir", options.folder,
                     "Folder of the bundles (default: llorch/bundles in $XDG_STATE_HOME or ~/.local/state)");
  command.add_flag("--record-prompts", options.prompts, "Bundles hold the tokens of prompts and answers");
}

fs::path default_bundle_folder() {
  const auto from = [](const char* variable) {
    const char* value = std::getenv(variable);
    return fs::path(value != nullptr && value[0] == '/' ? value : "");  // XDG: a relative one is to be ignored
  };
  if (const fs::path state = from("XDG_STATE_HOME"); !state.empty()) return state / "llorch" / "bundles";
  if (const fs::path home = from("HOME"); !home.empty()) return home / ".local" / "state" / "llorch" / "bundles";
  return {};
}

std::optional<BundleFolder> open_bundle_folder(const RecordOptions& options, const Logger& log) {
  if (options.record == "off") {
    if (!options.folder.empty() || options.prompts)
      throw InputError("--record off: expected neither --record-dir nor --record-prompts");
    return std::nullopt;
  }
  const fs::path folder = options.folder.empty() ? default_bundle_folder() : fs::path(options.folder);
  try {
    if (folder.empty()) fail("neither XDG_STATE_HOME nor HOME says where bundles may go: --record-dir can");
    BundleFolder opened(folder, {});
    log.info("flight recorder ready",
             {{"folder", folder.string()}, {"prompts", options.prompts ? "recorded" : "redacted"}});
    return opened;
  } catch (const Error& error) {
    if (!options.folder.empty()) throw InputError(fmt::format("--record-dir {}", error.what()));
    log.warn("flight recorder off", {{"error", error.what()}});
    return std::nullopt;
  }
}

FileStamps::FileStamps(const std::vector<fs::path>& files) {
  for (const fs::path& file : files) stamps_.push_back(stamp(file));
}

FileStamps::Stamp FileStamps::stamp(const fs::path& path) {
  std::error_code error;
  const uintmax_t bytes = fs::file_size(path, error);
  if (error) fail("{}: {}", path.string(), error.message());
  return {path, bytes, fs::last_write_time(path, error)};
}

bool FileStamps::unchanged() const {
  return std::all_of(stamps_.begin(), stamps_.end(), [](const Stamp& s) { return stamp(s.path) == s; });
}

BundleOrigin origin_of(const LoadedModel& loaded, const std::string& model, const EngineOptions& engine) {
  BundleOrigin origin;
  origin.build = "llorch " LLORCH_VERSION;
  origin.backend = loaded.backend.name;
  origin.device = loaded.backend.device;
  origin.numerics = loaded.numerics;
  origin.model = loaded.config.name;
  origin.model_path = lasting_path(model);
  origin.config = config_of(loaded.config);
  const Plan& plan = loaded.program->plan();
  const CompileOptions& compile = loaded.program->options();
  origin.plan_hash = plan_hash(plan);
  origin.kv = compile.kv;
  origin.context = plan.context();
  origin.max_rows = compile.max_rows;
  origin.max_step_rows = std::min(engine.max_step_rows, compile.max_rows);
  origin.max_prefill_rows = engine.max_prefill_rows;
  return origin;
}

// The files are looked at before they are mapped: reading one that has become shorter would end the process.
void add_hashes(BundleOrigin& origin, const fs::path& model, const FileStamps& loaded,
                const std::function<bool()>& go_on) {
  origin.no_model_hash = "the model's files have changed since they were loaded";
  try {
    if (!loaded.unchanged()) return;
    const auto hashes = hash_each_tensor(Checkpoint::open(model), go_on);
    if (!hashes) {
      origin.no_model_hash = "the worker ended before the model's files were read";
    } else if (loaded.unchanged()) {
      origin.model_hash = hashes->all;
      origin.weights = hashes->each;
    }
  } catch (const std::exception& error) {
    origin.no_model_hash = with_causes(error);
  }
}

}  // namespace llorch
