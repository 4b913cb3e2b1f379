// The tiny model on a backend held against what Hugging Face transformers made of it in float32.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <string>

#include "trace/diff_traces.h"
#include "trace/tiny_model_for_test.h"

namespace llorch::test {

// Made by tests/golden/outside_trace.py tests/fixtures/tiny-llama 5,6,7,84,9,240,11,12,130,14,15,77 OUT --decode 3
inline constexpr const char* kOutsideTrace = LLORCH_SOURCE_DIR "/tests/golden/tiny-llama.outside.safetensors";

// A trace of the tiny model: what the file's tokens give on this backend.
inline TraceFile trace_tiny(Backend& backend, const TraceInfo& as_in, DType kv_dtype) {
  const TinyModel model;
  CompileOptions options = TinyModel::tiny_options();
  options.kv.dtype = kv_dtype;
  SequenceRun run;
  run.tokens = as_in.tokens;
  run.n_prompt = as_in.n_prompt;
  TraceInfo info;
  info.numerics = "exact";
  info.kv_dtype = to_string(kv_dtype);
  const std::filesystem::path path = testing::TempDir() + "llorch_outside_" + std::to_string(::getpid());
  write_trace(path, *model.compile(backend, options), run, model.all_steps(), info);
  TraceFile file(path);
  std::filesystem::remove(path);  // the mapping keeps it
  return file;
}

inline DiffReport diff_with_outside(Backend& backend, DType kv_dtype) {
  const TraceFile outside(kOutsideTrace);
  return diff_traces(trace_tiny(backend, outside.info(), kv_dtype), outside);
}

inline std::string first_outside_bounds(const DiffReport& report) {
  return report.same() ? "" : report.steps[static_cast<size_t>(report.first)].step;
}

}  // namespace llorch::test
