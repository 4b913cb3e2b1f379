// The flags of a traced run, and the run itself: shared by llorch trace and llorch diff.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "app/load.h"
#include "trace/record.h"
#include "trace/trace_info.h"

namespace llorch {

struct TraceOptions {
  LoadOptions load;
  std::vector<int32_t> tokens;     // these, or
  std::string prompt;              // those of a text
  uint32_t n_decode = 0;           // the last of them are decoded one at a time
  std::vector<std::string> steps;  // patterns; none: all
  std::string layers;              // "A..B"; empty: all
};

// All but those of add_load_options().
void add_trace_options(CLI::App& command, TraceOptions& options);

// A model that is loaded, and what the flags say is run on it.
struct TracedModel {
  LoadedModel model;
  SequenceRun run;
  StepSet steps;
  TraceInfo info;  // all but tokens and steps
};

// Loads the model. Throws InputError for what the caller can mend.
TracedModel load_traced(const TraceOptions& options);

// Loads the model, runs the tokens and writes the trace. Throws as load_traced() does, StepError when a step fails.
void trace_model(const TraceOptions& options, const std::filesystem::path& out);

}  // namespace llorch
