// <exe>/../share/llorch/models when installed, the source tree's models/ when not.
#include "app/model_path.h"

#include <fmt/format.h>

#include <vector>

#include "app/commands.h"

#ifdef __APPLE__
#include <mach-o/dyld.h>
#endif

namespace llorch {

namespace fs = std::filesystem;

fs::path own_executable() {
#ifdef __APPLE__
  uint32_t size = 0;
  _NSGetExecutablePath(nullptr, &size);
  std::string path(size, '\0');
  if (_NSGetExecutablePath(path.data(), &size) != 0) fail("the path of this program is unknown");
  return fs::canonical(path.c_str());
#else
  return fs::read_symlink("/proc/self/exe");
#endif
}

namespace {

// The source tree counts only for a program that has not been installed: one that stands in its build folder.
std::vector<fs::path> model_folders() {
  const fs::path here = own_executable().parent_path();
  std::vector<fs::path> folders = {here.parent_path() / "share" / "llorch" / "models"};
  std::error_code error;
  if (fs::equivalent(here, LLORCH_BUILD_FOLDER, error)) folders.emplace_back(LLORCH_SOURCE_MODELS);
  return folders;
}

}  // namespace

fs::path find_model(const std::string& path_or_name) {
  std::error_code error;
  if (!path_or_name.empty() && fs::exists(path_or_name, error)) return path_or_name;
  const std::string name = path_or_name.empty() ? LLORCH_EMBEDDED_MODEL : path_or_name;
  const bool is_name = !name.empty() && name.find('/') == std::string::npos && name != "." && name != "..";
  std::string looked_at;
  for (const fs::path& folder : model_folders()) {
    if (is_name && fs::exists(folder / name / "config.json", error)) return folder / name;
    looked_at += (looked_at.empty() ? "" : " and ") + folder.string();
  }
  if (!path_or_name.empty())
    throw InputError(fmt::format("model {}: no such file, and no such name in {}", name, looked_at));
  if (name.empty()) throw InputError("no --model was given, and this llorch was built without an embedded model");
  throw InputError(fmt::format("the embedded model {} is missing; it was looked for in {}", name, looked_at));
}

}  // namespace llorch
