// Where models are: paths, names of installed models, the embedded default.
#pragma once

#include <filesystem>
#include <string>

namespace llorch {

// The path of --model: a path that exists, else the name of a model among the installed ones, else (empty) the embedded
// model. Throws InputError naming the places that were looked at.
std::filesystem::path find_model(const std::string& path_or_name);

// The path of this program's own file.
std::filesystem::path own_executable();

}  // namespace llorch
