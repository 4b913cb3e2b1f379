// Where file, model and backend meet: a checkpoint becomes a program.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "app/commands.h"
#include "backend/backend.h"
#include "base/log.h"
#include "format/checkpoint.h"
#include "model/config.h"
#include "text/tokenizer.h"

namespace llorch {

struct LoadOptions {
  std::string model;    // path or name; empty: the embedded model
  std::string backend;  // empty: the best one that is compiled in and present
  int device = 0;
  std::string numerics;  // "exact" or "fast"; empty: numerics_of()'s choice
  std::string kv_dtype;  // "f16", "f32" or "q8_0"; empty: f16
  int threads = 0;       // 0: one for each processor
  std::string isa;       // of the cpu backend; empty: the best
  uint32_t context = 0;  // 0: the model's, or what fits
  uint64_t kv_memory = 0;
  double gpu_memory_utilization = 0.0;  // 0: not given
  uint32_t max_sequences = 64;          // of one step
  bool self_test = false;               // room is left for its second program
};

// The flags that say on what a model runs: backend, device, numerics, threads.
void add_backend_options(CLI::App& command, LoadOptions& options);

// --kv-dtype: what keys and values are rounded to; and what it says.
void add_kv_dtype_option(CLI::App& command, LoadOptions& options);
DType kv_dtype_of(const LoadOptions& options);

// The backend of these flags. Throws InputError if it is not there.
std::unique_ptr<Backend> make_backend(const LoadOptions& options);

// What these flags ask for; where they say nothing, what is preferred, if the backend has it.
Numerics numerics_of(const LoadOptions& options, const Backend& backend, Numerics preferred);
std::string to_string(Numerics numerics);

// --ctx, --kv-memory, --gpu-memory-utilization: what plan_memory() goes by.
void add_memory_options(CLI::App& command, LoadOptions& options);

// --max-running
void add_max_running_option(CLI::App& command, LoadOptions& options);

// The flags of every command that loads a model. With model_is_positional the model is the argument MODEL.
void add_load_options(CLI::App& command, LoadOptions& options, bool model_is_positional);

// Reads from the mapped files, which the checkpoint must outlive.
WeightSource source_of(const Checkpoint& checkpoint);

// What the start took.
struct LoadTimes {
  double context_ms = 0.0;  // until the device was there; the files are opened meanwhile
  double load_ms = 0.0;     // weights from their source to where they are used
  uint64_t bytes = 0;       // of them in the file

  double gb_per_s() const { return static_cast<double>(bytes) / (load_ms * 1e6); }
};
// "weights: 2200.1 MB in 92 ms (23.9 GB/s), device context in 310 ms\n"
std::string to_text(const LoadTimes& times);

struct LoadedModel {
  ModelConfig config;
  std::string dtype;  // of most of the weights' bytes
  std::string numerics;
  std::vector<int32_t> eos;                  // of configuration and tokenizer
  std::vector<std::filesystem::path> files;  // that hold its tensors
  BackendInfo backend;
  std::unique_ptr<Backend> device;
  std::shared_ptr<const Tokenizer> tokenizer;
  std::shared_ptr<const PlacedWeights> weights;
  LoadTimes times;
  std::unique_ptr<Program> program;  // on them; its plan, context and KV pages: program->plan(), program->options()
};

// Calls open(). Errors about the caller's files are the caller's to mend: those without a code become INVALID_MODEL.
template <typename Open>
auto blame_files(Open open) {
  try {
    return open();
  } catch (const CodedError&) {
    throw;
  } catch (const Error& error) {
    throw InputError(error.what(), ErrorCode::kInvalidModel);
  }
}

// Device, verify, load. Throws InputError for what the caller can mend, Error otherwise.
LoadedModel load(const LoadOptions& options, const Logger& log, Numerics preferred = Numerics::kFast);

}  // namespace llorch
