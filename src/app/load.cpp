// Loading, in the order of the contract; what was found is logged as it is found.
#include "app/load.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <map>

#include "app/memory.h"
#include "app/model_path.h"
#include "format/checkpoint.h"
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

struct Files {
  Checkpoint checkpoint;
  Model model;
  KvShape kv;
  std::shared_ptr<const Tokenizer> tokenizer;
};

// Everything that a wrong file or flag can be refused for, before any weight is read.
Files open_files(const LoadOptions& options, const Backend& device) {
  Checkpoint checkpoint = Checkpoint::open(find_model(options.model));
  std::shared_ptr<const Tokenizer> tokenizer = Tokenizer::load(checkpoint);
  const Model shape = load_model(checkpoint, 1);  // for the size of a page; without the whole rotation table
  KvShape kv;
  kv.dtype = kv_dtype_of(options);
  if (options.context > shape.config.context) {
    throw InputError(
        fmt::format("--ctx {}: the model was made for {} positions", options.context, shape.config.context));
  }
  const uint64_t available = device.free_memory().value_or(available_memory_bytes());
  const KvBudget budget =
      choose_kv_budget({kv_page_bytes(shape.plan, kv), kv.page_size, shape.config.context, options.context,
                        options.kv_memory, available - std::min(available, checkpoint.file_bytes())});
  kv.n_pages = budget.n_pages;
  Model model = load_model(checkpoint, budget.context);
  return {std::move(checkpoint), std::move(model), kv, std::move(tokenizer)};
}

// Rows of one batch in fast: products of fewer leave most of a large GPU idle.
constexpr uint32_t kFastRows = 2048;

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
  command.add_option("--ctx", options.context, "Positions of one sequence (default: the model's, bounded by memory)")
      ->check(CLI::PositiveNumber);
  command.add_option("--kv-memory", options.kv_memory, "Memory of the KV pages, as 512MB or 4GB")
      ->transform(CLI::AsSizeValue(false));
}

LoadedModel load(const LoadOptions& options, const Logger& log, Numerics preferred) {
  LoadedModel out;
  out.device = make_backend(options);
  out.backend = out.device->info();
  CompileOptions compile;
  compile.numerics = numerics_of(options, *out.device, preferred);
  out.numerics = to_string(compile.numerics);
  log.info("device ready", {{"backend", out.backend.name}, {"device", out.backend.device}, {"numerics", out.numerics}});

  Files files = blame_files([&] { return open_files(options, *out.device); });
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
                              {"context", files.model.plan.context()},
                              {"bytes", files.checkpoint.file_bytes()}});

  const auto begin = std::chrono::steady_clock::now();
  WeightSource source;
  source.open = [&](const Weight& weight) { return files.checkpoint.at(weight.name); };
  source.close = [&](const Tensor& tensor) { files.checkpoint.release(tensor); };
  out.weights = out.device->place(files.model.plan, source);
  compile.kv = files.kv;
  compile.max_logit_rows = options.max_sequences;
  compile.max_rows =
      std::max(compile.numerics == Numerics::kFast ? kFastRows : compile.max_rows, options.max_sequences);
  out.program = out.device->compile(files.model.plan, out.weights, compile);
  const auto elapsed = std::chrono::steady_clock::now() - begin;
  log.info("model loaded", {{"model", out.config.name},
                            {"device", out.backend.device},
                            {"weight_bytes", out.weights->bytes()},
                            {"program_bytes", out.program->bytes()},
                            {"kv_pages", files.kv.n_pages},
                            {"kv_page_size", files.kv.page_size},
                            {"duration_ms", std::chrono::duration_cast<std::chrono::milliseconds>(elapsed).count()}});
  return out;
}

}  // namespace llorch
