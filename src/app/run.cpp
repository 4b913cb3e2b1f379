// llorch run: one prompt, its continuation as it is sampled, and what that took.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <numeric>
#include <utility>

#include "app/bench.h"
#include "app/commands.h"
#include "app/load.h"
#include "app/model_path.h"
#include "app/recording.h"
#include "base/timestamp.h"
#include "engine/fault_trace.h"
#include "engine/logits_hash.h"
#include "engine/request_failure.h"
#include "engine/sampler.h"
#include "engine/tripwire.h"
#include "server/event_stream.h"
#include "trace/bundle_file.h"

namespace llorch {
namespace {

using Clock = std::chrono::steady_clock;

double ms_since(Clock::time_point begin) {
  return std::chrono::duration<double, std::milli>(Clock::now() - begin).count();
}

struct RunOptions {
  LoadOptions load;
  std::string prompt;
  uint32_t max_tokens = 128;
  std::string record;  // a file; empty: none
  bool record_prompts = false;
  SamplingParams sampling{.temperature = 0.7f};
};

// One sequence on a program of its own: no scheduler, no pages but its own, in order.
class LoneSequence {
 public:
  LoneSequence(Program& program, size_t positions) : program_(program) {
    const uint32_t page_size = program.options().kv.page_size;
    pages_.resize((positions + page_size - 1) / page_size);
    std::iota(pages_.begin(), pages_.end(), 0u);
  }

  // Runs the tokens at the positions that follow; logits [vocab] of the last one.
  std::span<const float> run(std::span<const int32_t> tokens) {
    const size_t max_rows = program_.options().max_rows;
    while (tokens.size() > max_rows) {
      step(tokens.first(max_rows), false);
      tokens = tokens.subspan(max_rows);
    }
    return step(tokens, true);
  }

  // The step that ran last, or failed: its first position, and where it ends.
  uint32_t step_begin() const { return step_begin_; }
  uint32_t step_end() const { return position_; }
  std::vector<StepTiming> last_steps() const { return log_.last(); }

  // Why the last logits have this fault. tokens: all that were run.
  FailEvent trace_fault(LogitsFault fault, std::span<const int32_t> tokens, const std::string& device) {
    Request request;
    request.tokens.assign(tokens.begin(), tokens.end());
    Sequence sequence(0, std::move(request), {});
    sequence.pages = pages_;
    return llorch::trace_fault(program_, fault, sequence, device);
  }

 private:
  std::span<const float> step(std::span<const int32_t> tokens, bool wants_logits) {
    const auto rows = static_cast<uint32_t>(tokens.size());
    Batch batch;
    batch.tokens.assign(tokens.begin(), tokens.end());
    batch.sequences.push_back({0, rows, position_, 0, static_cast<uint32_t>(pages_.size())});
    batch.pages = pages_;
    if (wants_logits) batch.logit_rows.push_back(rows - 1);
    step_begin_ = std::exchange(position_, position_ + rows);
    StepTiming timing{
        .start_ms = ms_since(made_at_), .rows = rows, .sequences = 1, .logit_rows = wants_logits ? 1u : 0u};
    timing.failed = true;
    const auto begin = Clock::now();
    const auto log = [&] {
      timing.ms = ms_since(begin);
      log_.add(timing);
    };
    try {
      const std::span<const float> logits = program_.run(batch);
      timing.failed = false;
      log();
      return logits;
    } catch (...) {
      log();
      throw;
    }
  }

  Program& program_;
  std::vector<uint32_t> pages_;
  uint32_t position_ = 0, step_begin_ = 0;
  const Clock::time_point made_at_ = Clock::now();
  StepLog log_;
};

struct RunResult {
  SequenceRecord record;
  double prefill_s = 0, decode_s = 0;

  size_t n_generated() const { return record.tokens.size() - record.n_prompt; }
};

void print(const std::string& text) {
  std::fwrite(text.data(), 1, text.size(), stdout);
  std::fflush(stdout);
}

// Until the end of the sequence, or an exception; `out` is true of what was done so far in both cases.
void generate(LoadedModel& model, LoneSequence& sequence, const RunOptions& options, RunResult& out) {
  SequenceRecord& record = out.record;
  Sampler sampler(model.program->plan().vocab);
  LogitsHash hash;
  StreamDecoder decoder = decoder_after(record.tokens, model.tokenizer);
  const auto begin = Clock::now();
  std::span<const float> logits = sequence.run(record.tokens);
  const auto decode_begin = Clock::now();
  out.prefill_s = std::chrono::duration<double>(decode_begin - begin).count();
  record.finish = FinishReason::kMaxTokens;
  for (uint32_t index = 0; index < options.max_tokens; ++index) {
    if (const LogitsFault fault = check_logits(logits); fault != LogitsFault::kNone)
      throw RequestError("the run ends", sequence.trace_fault(fault, record.tokens, model.backend.device));
    hash.add(logits);
    record.logits_hashes.push_back(hash.value());
    const int32_t id = sampler.sample(logits, options.sampling, record.tokens, index);
    if (std::binary_search(model.eos.begin(), model.eos.end(), id)) {
      record.finish = FinishReason::kEos;
      break;
    }
    print(decoder.push(id));
    record.tokens.push_back(id);
    if (index + 1 < options.max_tokens) logits = sequence.run(std::span(record.tokens).last(1));
  }
  out.decode_s = std::chrono::duration<double>(Clock::now() - decode_begin).count();
  print(decoder.flush() + "\n");
}

FailEvent failure_in(const std::exception& error, const LoneSequence& sequence) {
  FailEvent failure = failure_of(error, ErrorCode::kInferenceFailed);
  if (failure.kv_len == 0) {
    failure.position = sequence.step_begin();
    failure.kv_len = sequence.step_end();
  }
  return failure;
}

// --record: also of a run that failed, whose error must not be hidden by one of the disk.
void write_record(const LoadedModel& model, RunResult& result, const LoneSequence& sequence,
                  const RunOptions& options) {
  if (options.record.empty()) return;
  EngineOptions engine;  // as an engine would run it alone
  engine.max_step_rows = engine.max_prefill_rows = model.program->options().max_rows;
  BundleOrigin origin = origin_of(model, options.load.model, engine);
  add_hashes(origin, find_model(options.load.model), FileStamps(model.files), [] { return true; });
  result.record.last_steps = sequence.last_steps();
  if (result.record.failure) result.record.finish.reset();
  write_bundle(options.record, make_bundle(origin, result.record, iso8601_now(), options.record_prompts));
}

RunResult generate(LoadedModel& model, std::vector<int32_t> prompt, const RunOptions& options) {
  RunResult result;
  SequenceRecord& record = result.record;
  LoneSequence sequence(*model.program, prompt.size() + options.max_tokens);
  record.n_prompt = static_cast<uint32_t>(prompt.size());
  record.tokens = std::move(prompt);
  record.max_tokens = options.max_tokens;
  record.eos = model.eos;
  record.sampling = options.sampling;
  try {
    generate(model, sequence, options, result);
  } catch (const std::exception& error) {
    record.failure = failure_in(error, sequence);
    try {
      write_record(model, result, sequence, options);
    } catch (const Error& of_disk) {
      std::fprintf(stderr, "llorch: --record: %s\n", of_disk.what());
    }
    throw;
  }
  write_record(model, result, sequence, options);
  return result;
}

// The last line. Decoding is what follows the first token; its bytes are those of a step in the middle of it.
void print_figures(LoadedModel& model, const RunResult& result) {
  const SequenceRecord& record = result.record;
  const size_t steps = result.n_generated() == 0 ? 0 : result.n_generated() - 1;
  const Plan& plan = model.program->plan();
  std::string speed = "one step only";
  if (steps > 0) {
    const double rate = static_cast<double>(steps) / result.decode_s;
    const auto context = static_cast<uint32_t>(record.n_prompt + result.n_generated() / 2);
    const double bytes_per_s = rate * decode_bytes(plan, model.program->options().kv, context, 1);
    const double roof = model.device->measure_roof().read_bytes_per_s;
    speed = fmt::format("{:.1f} tok/s, {:.3f} ms/token, {:.2f} GB/s, {:.0f} % of the read roof of {:.1f} GB/s", rate,
                        1e3 / rate, bytes_per_s / 1e9, 100 * bytes_per_s / roof, roof / 1e9);
  }
  print("\n" + to_text(model.times));
  print(fmt::format("{} tokens after {} ({:.1f} ms), {}, {}, logits xxh3 of all steps {:016x}\n", result.n_generated(),
                    record.n_prompt, result.prefill_s * 1e3, speed, to_string(*record.finish),
                    record.logits_hashes.back()));
}

void run(RunOptions options) {
  options.load.max_sequences = 1;
  LoadedModel model = load(options.load, Logger::to_nowhere());
  const std::vector<int32_t> prompt = model.tokenizer->encode(options.prompt, true);
  const uint32_t context = model.program->plan().context();
  if (prompt.empty()) throw InputError("--prompt: it has no tokens");
  if (prompt.size() + options.max_tokens > context) {
    throw InputError(fmt::format("the prompt is {} tokens and --max-tokens is {}: {} together, but the context is {}",
                                 prompt.size(), options.max_tokens, prompt.size() + options.max_tokens, context));
  }
  print(options.prompt);
  try {
    const RunResult result = generate(model, prompt, options);
    print_figures(model, result);
  } catch (...) {
    print("\n");  // what went wrong is told on a line of its own
    throw;
  }
}

}  // namespace

void add_run(CLI::App& app) {
  auto options = std::make_shared<RunOptions>();
  CLI::App* command = app.add_subcommand("run", "Continue a prompt on the terminal");
  add_load_options(*command, options->load, true);
  add_kv_dtype_option(*command, options->load);
  SamplingParams& sampling = options->sampling;
  command->add_option("--prompt", options->prompt, "The text to continue")->required();
  command->add_option("--max-tokens", options->max_tokens, "Tokens at most")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  command->add_option("--temperature", sampling.temperature, "0: greedy")
      ->check(CLI::Range(0.0, 2.0))
      ->capture_default_str();
  command->add_option("--seed", sampling.seed, "Seed")->capture_default_str();
  command->add_option("--top-k", sampling.top_k, "0: off")->capture_default_str();
  command->add_option("--top-p", sampling.top_p, "1: off")->check(CLI::Range(0.0, 1.0))->capture_default_str();
  command->add_option("--min-p", sampling.min_p, "0: off")->check(CLI::Range(0.0, 1.0))->capture_default_str();
  command->add_option("--repetition-penalty", sampling.repetition_penalty, "0 and 1: off")
      ->check(CLI::Range(0.0, 2.0))
      ->capture_default_str();
  command->add_option("--record", options->record, "Write a bundle to this file, which `llorch replay` runs again");
  command->add_flag("--record-prompts", options->record_prompts, "The bundle holds the tokens of prompt and answer")
      ->needs("--record");
  command->callback([options] { run(*options); });
}

}  // namespace llorch
