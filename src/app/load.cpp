// Loading, in the order of the contract; what was found is logged as it is found.
#include "app/load.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cmath>
#include <future>
#include <limits>
#include <map>

#include "app/memory_plan.h"
#include "app/model_path.h"
#include "model/model.h"

namespace llorch {
namespace {

// The dtype that holds most of the weights' bytes.
std::string main_dtype(const Checkpoint& checkpoint) {
  std::map<std::string, size_t> bytes;
  for (const Tensor& tensor : checkpoint.tensors()) bytes[std::string(to_string(tensor.dtype))] += tensor.bytes.size();
  const auto most =
      std::max_element(bytes.begin(), bytes.end(), [](const auto& a, const auto& b) { return a.second < b.second; });
  return most == bytes.end() ? "none" : most->first;
}

std::vector<int32_t> all_eos(const ModelConfig& config, const Tokenizer& tokenizer) {
  std::vector<int32_t> eos = config.eos;
  eos.insert(eos.end(), tokenizer.eos().begin(), tokenizer.eos().end());
  std::sort(eos.begin(), eos.end());
  eos.erase(std::unique(eos.begin(), eos.end()), eos.end());
  return eos;
}

// Rotation tables of so many positions are made while the device wakes up, before it is known whether they fit.
constexpr uint32_t kMaxEarlyContext = 128 * 1024;

struct Files {
  Checkpoint checkpoint;
  Model shape;  // with one position: it says what memory is needed
  Model model;  // of as many as were asked for, if they are not too many
  std::shared_ptr<const Tokenizer> tokenizer;
};

// What a wrong file can be refused for, before any weight is read and without a device.
Files open_files(const LoadOptions& options) {
  Checkpoint checkpoint = Checkpoint::open(find_model(options.model));
  std::shared_ptr<const Tokenizer> tokenizer = Tokenizer::load(checkpoint);
  Model shape = load_model(checkpoint, 1);
  const uint32_t wanted = options.context != 0 ? options.context : shape.config.context;
  Model model = load_model(checkpoint, std::min({wanted, shape.config.context, kMaxEarlyContext}));
  return {std::move(checkpoint), std::move(shape), std::move(model), std::move(tokenizer)};
}

double ms_since(std::chrono::steady_clock::time_point begin) {
  return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - begin).count();
}

double rounded(double value) { return std::round(value * 10.0) / 10.0; }

}  // namespace

void add_kv_dtype_option(CLI::App& command, LoadOptions& options) {
  command.add_option("--kv-dtype", options.kv_dtype, "What keys and values are rounded to (default: f16)")
      ->check(CLI::IsMember({"f16", "f32", "q8_0"}));
}

DType kv_dtype_of(const LoadOptions& options) {
  return options.kv_dtype == "f32" ? DType::kF32 : options.kv_dtype == "q8_0" ? DType::kQ8_0 : DType::kF16;
}

void add_load_options(CLI::App& command, LoadOptions& options, bool model_is_positional) {
  const std::string what = "Model: a directory, a .safetensors or .gguf file, or an installed model's name";
  if (model_is_positional) {
    command.add_option("MODEL", options.model, what)->required();
  } else {
    command.add_option("--model", options.model, what + " (default: the embedded model)");
  }
  add_backend_options(command, options);
  add_memory_options(command, options);
}

void add_memory_options(CLI::App& command, LoadOptions& options) {
  command.add_option("--ctx", options.context, "Positions of one sequence (default: the model's, bounded by memory)")
      ->check(CLI::PositiveNumber);
  CLI::Option* kv_memory =
      command.add_option("--kv-memory", options.kv_memory, "Memory of the KV pages, as 512MB or 4GB")
          ->transform(CLI::AsSizeValue(false));
  command
      .add_option("--gpu-memory-utilization", options.gpu_memory_utilization,
                  "Share of the device's memory that all together may take; KV pages get what is left (default: 0.9)")
      ->check(CLI::Validator(
          [](const std::string& text) {
            double share = 0.0;
            const bool fits = CLI::detail::lexical_cast(text, share) && share > 0.0 && share <= 1.0;
            return fits ? std::string() : fmt::format("expected more than 0 and at most 1, got {}", text);
          },
          "SHARE"))
      ->excludes(kv_memory);
}

void add_max_running_option(CLI::App& command, LoadOptions& options) {
  command.add_option("--max-running", options.max_sequences, "Sequences of one step")
      ->check(CLI::Range(1, 1024))
      ->capture_default_str();
}

WeightSource source_of(const Checkpoint& checkpoint) {
  return {.open = [&checkpoint](const Weight& weight) { return checkpoint.at(weight.name); },
          .close = [&checkpoint](const Tensor& tensor) { checkpoint.release(tensor); },
          .max_open = std::numeric_limits<size_t>::max()};
}

std::string to_text(const LoadTimes& times) {
  return fmt::format("weights: {:.1f} MB in {:.0f} ms ({:.1f} GB/s), device context in {:.0f} ms\n",
                     static_cast<double>(times.bytes) / 1e6, times.load_ms, times.gb_per_s(), times.context_ms);
}

LoadedModel load(const LoadOptions& options, const Logger& log, Numerics preferred) {
  LoadedModel out;
  auto opening = std::async(std::launch::async, [&options] { return open_files(options); });
  auto begin = std::chrono::steady_clock::now();
  out.device = make_backend(options);
  out.times.context_ms = ms_since(begin);
  out.backend = out.device->info();
  MemoryPlace place = place_of(*out.device);
  place.numerics = numerics_of(options, *out.device, preferred);
  out.numerics = to_string(place.numerics);
  log.info("device ready", {{"backend", out.backend.name},
                            {"device", out.backend.device},
                            {"numerics", out.numerics},
                            {"context_ms", rounded(out.times.context_ms)}});

  Files files = blame_files([&] { return opening.get(); });
  const MemoryPlan memory = plan_memory(options, std::move(files.shape.plan), files.shape.config.context, place);
  if (files.model.plan.context() != memory.context) files.model = load_model(files.checkpoint, memory.context);
  const Plan& plan = files.model.plan;
  out.config = files.model.config;
  out.dtype = main_dtype(files.checkpoint);
  out.tokenizer = files.tokenizer;
  for (const MappedFile& file : files.checkpoint.files()) out.files.push_back(file.path());
  out.eos = all_eos(out.config, *out.tokenizer);
  log.info("model verified", {{"model", out.config.name},
                              {"architecture", out.config.architecture},
                              {"dtype", out.dtype},
                              {"hidden_size", out.config.hidden},
                              {"layers", out.config.n_layers},
                              {"vocabulary", out.config.vocab},
                              {"context", plan.context()},
                              {"bytes", files.checkpoint.file_bytes()}});

  begin = std::chrono::steady_clock::now();
  out.weights = out.device->place(plan, source_of(files.checkpoint));
  out.times.load_ms = ms_since(begin);
  out.times.bytes = weight_bytes(plan);
  out.program = out.device->compile(plan, out.weights, memory.compile);
  log.info("model loaded", {{"model", out.config.name},
                            {"device", out.backend.device},
                            {"weight_bytes", out.weights->bytes()},
                            {"program_bytes", out.program->bytes()},
                            {"kv_pages", memory.compile.kv.n_pages},
                            {"kv_page_size", memory.compile.kv.page_size},
                            {"load_ms", rounded(out.times.load_ms)},
                            {"load_gb_per_s", rounded(out.times.gb_per_s())},
                            {"duration_ms", static_cast<int64_t>(ms_since(begin))}});
  return out;
}

}  // namespace llorch
