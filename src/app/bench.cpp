// llorch bench: decode and prefill of a model file or a named shape, beside the machine's roofs.
#include "app/bench.h"

#include <CLI/CLI.hpp>
#include <chrono>
#include <future>
#include <iostream>

#include "app/commands.h"
#include "app/load.h"
#include "app/model_path.h"
#include "app/shapes.h"
#include "model/model.h"

namespace llorch {
namespace {

struct BenchFlags {
  std::string model, shape, dtype = "f16";
  LoadOptions load;  // of the backend
  bool json = false, no_check = false;
  BenchOptions run;
};

nlohmann::json to_json(const Measured& m, bool has_matrix_share) {
  nlohmann::json report{{"tokens_per_s", m.tokens_per_s},
                        {"ms_per_token", 1e3 / m.tokens_per_s},
                        {"spread", m.spread},
                        {"bytes_per_token", m.bytes_per_token},
                        {"gb_per_s", m.tokens_per_s * m.bytes_per_token / 1e9},
                        {"share_of_read_roof", m.share_of_read_roof},
                        {"gflop_per_s", m.tokens_per_s * m.flops_per_token / 1e9},
                        {"share_of_f32_peak", m.share_of_f32_peak}};
  if (has_matrix_share) report["share_of_matrix_roof"] = m.share_of_matrix_roof;
  return report;
}

nlohmann::json to_json(const Roof& roof) {
  nlohmann::json report{{"read_gb_per_s", roof.read_bytes_per_s / 1e9}, {"f32_gflop_per_s", roof.flops_per_s / 1e9}};
  if (roof.matrix_flops_per_s > 0.0) report["matrix_gflop_per_s"] = roof.matrix_flops_per_s / 1e9;
  return report;
}

// What outputs_match_reference() has said.
std::string text_of_outputs(bool match, bool fast) {
  if (!match) return "outputs: DIFFER from the reference\n";
  const std::string more =
      fast ? fmt::format(", and inside the bound of fast after {} more rows", kMoreCheckedRows) : std::string();
  return fmt::format(
      "outputs: logits are the reference's bits after a prompt of {} rows and a decode{} (same widths, one layer)\n",
      kCheckedRows, more);
}

void print_table(const nlohmann::json& r) {
  const auto number = [](const nlohmann::json& value) { return value.get<double>(); };
  std::cout << fmt::format("{}, {}, {} on {}, numerics {}\n", r["model"].get<std::string>(),
                           r["dtype"].get<std::string>(), r["backend"].get<std::string>(),
                           r["device"].get<std::string>(), r["numerics"].get<std::string>());
  const nlohmann::json& roof = r["roof"];
  std::cout << fmt::format("roofs: read {:.1f} GB/s, f32 multiply-add {:.0f} GFLOP/s{}\n",
                           number(roof["read_gb_per_s"]), number(roof["f32_gflop_per_s"]),
                           roof.contains("matrix_gflop_per_s") ? fmt::format(", 16-bit matrix products {:.0f} GFLOP/s",
                                                                             number(roof["matrix_gflop_per_s"]))
                                                               : "");
  const LoadTimes times = {number(r["context_ms"]), number(r["load_ms"]), r["load_bytes"].get<uint64_t>()};
  std::cout << to_text(times)
            << fmt::format("memory: weights {:.1f} MB, KV {:.1f} MB of {}; peak resident {:.1f} MB\n",
                           number(r["weight_bytes"]) / 1e6, number(r["kv_bytes"]) / 1e6,
                           r["kv_dtype"].get<std::string>(), number(r["peak_resident_bytes"]) / 1e6);
  const bool has_matrix_share = r["prefill"].contains("share_of_matrix_roof");
  const int matrix_width = has_matrix_share ? 13 : 0;
  std::cout << fmt::format("{:<22}{:>10}{:>12}{:>9}{:>12}{:>12}{:>12}{:>{}}{:>9}\n", "work", "tok/s", "ms/token",
                           "GB/s", "% of read", "GFLOP/s", "% of f32", has_matrix_share ? "% of matrix" : "",
                           matrix_width, "spread");
  for (const char* work : {"decode", "prefill"}) {
    const nlohmann::json& m = r[work];
    const bool decode = work == std::string("decode");
    std::string matrix_share;  // a decode of one sequence has no products of matrices
    if (has_matrix_share)
      matrix_share =
          decode && r["sequences"] == 1 ? "-" : fmt::format("{:.1f}%", 100 * number(m["share_of_matrix_roof"]));
    std::cout << fmt::format(
        "{:<22}{:>10.2f}{:>12.3f}{:>9}{:>12}{:>12.1f}{:>11.1f}%{:>{}}{:>8.1f}%\n",
        decode ? r["sequences"] == 1
                     ? fmt::format("decode at {}", r["context"].get<int>())
                     : fmt::format("decode {} at {}", r["sequences"].get<int>(), r["context"].get<int>())
               : fmt::format("prefill {}", r["prompt"].get<int>()),
        number(m["tokens_per_s"]), number(m["ms_per_token"]),
        decode ? fmt::format("{:.2f}", number(m["gb_per_s"])) : "-",
        decode ? fmt::format("{:.1f}%", 100 * number(m["share_of_read_roof"])) : "-", number(m["gflop_per_s"]),
        100 * number(m["share_of_f32_peak"]), matrix_share, matrix_width, 100 * number(m["spread"]));
  }
  const nlohmann::json& logits = r["logits"];
  std::cout << fmt::format(
      "logits of a token: a step that samples {:.1f} us, one that hands them out {:.1f} us; on the host check {:.2f} "
      "us "
      "({:.2f} % of its decode), hash {:.2f} us ({:.2f} %)\n",
      number(logits["step_sampling_us"]), number(logits["step_handing_out_us"]), number(logits["check_us"]),
      100 * number(logits["check_share_of_decode"]), number(logits["hash_us"]),
      100 * number(logits["hash_share_of_decode"]));
  if (r.contains("matches_reference"))
    std::cout << text_of_outputs(r["matches_reference"].get<bool>(), r["numerics"] == to_string(Numerics::kFast));
}

uint32_t positions_of(const BenchFlags& flags) {
  return std::max(flags.run.prompt, flags.run.context + flags.run.tokens);
}

BenchResult run_shape(Backend& backend, const BenchFlags& flags, nlohmann::json& report) {
  ModelConfig config = shape_config(flags.shape);
  const BenchResult result =
      run_bench(backend, shape_plan(config, flags.dtype, positions_of(flags)), random_weights(1), flags.run);
  report["model"] = flags.shape + " with random weights, which are made while they are loaded";
  report["dtype"] = flags.dtype;
  if (flags.no_check) return result;
  config.n_layers = 1;
  report["matches_reference"] = outputs_match_reference(backend, flags.run, shape_plan(config, flags.dtype, 64),
                                                        [] { return random_weights(7); });
  return result;
}

struct OpenFile {
  Checkpoint checkpoint;
  Model model;
};
OpenFile open_file(const BenchFlags& flags) {
  Checkpoint checkpoint = Checkpoint::open(find_model(flags.model));
  Model model = load_model(checkpoint, positions_of(flags));
  return {std::move(checkpoint), std::move(model)};
}

BenchResult run_file(Backend& backend, const OpenFile& file, const BenchFlags& flags, nlohmann::json& report) {
  const Plan& plan = file.model.plan;
  report["model"] = file.model.config.name;
  report["dtype"] = std::string(to_string(plan.weight(std::get<Linear>(plan.steps[2].op).weights[0]).dtype));
  return run_bench(backend, plan, source_of(file.checkpoint), flags.run);
}

void run(BenchFlags flags) {
  if (flags.model.empty() == flags.shape.empty()) throw InputError("give either MODEL or --shape");
  // The file is opened beside the device's awakening.
  auto opening = std::async(flags.model.empty() ? std::launch::deferred : std::launch::async,
                            [&flags] { return open_file(flags); });
  const auto begin = std::chrono::steady_clock::now();
  const std::unique_ptr<Backend> backend = make_backend(flags.load);
  const double context_ms = std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - begin).count();
  flags.run.numerics = numerics_of(flags.load, *backend, Numerics::kFast);
  nlohmann::json report{{"backend", backend->info().name},
                        {"device", backend->info().device},
                        {"kv_dtype", to_string(flags.run.kv_dtype)},
                        {"numerics", to_string(flags.run.numerics)},
                        {"sequences", flags.run.sequences},
                        {"context", flags.run.context},
                        {"prompt", flags.run.prompt}};
  const BenchResult result =
      flags.model.empty() ? run_shape(*backend, flags, report) : run_file(*backend, opening.get(), flags, report);
  report["roof"] = to_json(result.roof);
  // exact has float32 products.
  const bool has_matrix_share = flags.run.numerics == Numerics::kFast && result.roof.matrix_flops_per_s > 0.0;
  report["weight_bytes"] = result.weight_bytes;
  report["program_bytes"] = result.program_bytes;
  report["kv_bytes"] = result.kv_bytes;
  report["peak_resident_bytes"] = result.peak_resident_bytes;
  report["context_ms"] = context_ms;
  report["load_ms"] = result.times.load_ms;
  report["load_bytes"] = result.times.bytes;
  report["load_gb_per_s"] = result.times.gb_per_s();
  report["decode"] = to_json(result.decode, has_matrix_share);
  report["prefill"] = to_json(result.prefill, has_matrix_share);
  const double token_us = 1e6 / result.decode.tokens_per_s;
  report["logits"] = {{"check_us", result.check_us},
                      {"hash_us", result.hash_us},
                      {"check_share_of_decode", result.check_us / token_us},
                      {"hash_share_of_decode", result.hash_us / token_us},
                      {"step_handing_out_us", result.handed_out_us},
                      {"step_sampling_us", result.sampled_us}};
  if (flags.json)
    std::cout << report.dump(2) << "\n";
  else
    print_table(report);
  if (!report.value("matches_reference", true))
    throw Error("outputs differ from the reference: these figures are of a wrong program");
}

}  // namespace

void add_bench(CLI::App& app) {
  auto flags = std::make_shared<BenchFlags>();  // lives as long as the callback
  CLI::App* command = app.add_subcommand("bench", "Measure decode and prefill beside the machine's roofs");
  command->add_option("MODEL", flags->model,
                      "Model: a directory, a .safetensors or .gguf file, or an installed model's name");
  command->add_option("--shape", flags->shape, "A named shape with random weights instead of a model");
  command->add_option("--dtype", flags->dtype, "Type of the shape's matrices, or q4_k_m")->capture_default_str();
  add_backend_options(*command, flags->load);
  add_kv_dtype_option(*command, flags->load);
  command->add_option("--isa", flags->load.isa,
                      "Instruction set of the CPU (default: the best that this machine runs)");
  command->add_option("--prompt", flags->run.prompt, "Tokens of the prefill")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  command->add_option("--batch-rows", flags->run.prefill_rows, "Rows of one batch of the prefill")
      ->check(CLI::Range(1, 4096))
      ->capture_default_str();
  command->add_option("--context", flags->run.context, "Positions before the first decoded token")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  command->add_option("--tokens", flags->run.tokens, "Decoded tokens")
      ->check(CLI::Range(1, 1 << 16))
      ->capture_default_str();
  command->add_option("--batch", flags->run.sequences, "Sequences that are decoded at once")
      ->check(CLI::Range(1, 1024))
      ->capture_default_str();
  command->add_option("--repeats", flags->run.repeats, "Repetitions; medians are printed")
      ->check(CLI::Range(1, 100))
      ->capture_default_str();
  command->add_flag("--json", flags->json, "Print JSON");
  command->add_flag("--no-check", flags->no_check, "Do not compare outputs with the reference");
  command->callback([flags] {
    flags->run.kv_dtype = kv_dtype_of(flags->load);
    run(*flags);
  });
}

}  // namespace llorch
