// TraceInfo as the metadata of a SafeTensors file, and back.
#pragma once

#include <filesystem>
#include <map>
#include <string>

#include "trace/trace_info.h"

namespace llorch {

// Keys are the fields' names, and "llorch_trace": "1". Tokens are "1,2,3", steps a JSON array of objects.
std::map<std::string, std::string> to_metadata(const TraceInfo& info);

// Throws Error naming file and field, expected and got. Programs other than llorch (numerics "outside") must say
// backend, tokens and n_prompt; the other fields are then empty where they are absent.
TraceInfo trace_info(const std::map<std::string, std::string>& metadata, const std::filesystem::path& file);

}  // namespace llorch
