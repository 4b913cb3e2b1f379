// llorch run: one prompt, its continuation as it is sampled, and what that took.
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <numeric>

#include "app/bench.h"
#include "app/commands.h"
#include "app/load.h"
#include "engine/fault_trace.h"
#include "engine/logits_hash.h"
#include "engine/request_failure.h"
#include "engine/sampler.h"
#include "engine/tripwire.h"
#include "server/event_stream.h"

namespace llorch {
namespace {

using Clock = std::chrono::steady_clock;

struct RunOptions {
  LoadOptions load;
  std::string prompt;
  uint32_t max_tokens = 128;
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
    position_ += rows;
    return program_.run(batch);
  }

  Program& program_;
  std::vector<uint32_t> pages_;
  uint32_t position_ = 0;
};

struct RunResult {
  std::vector<int32_t> generated;
  const char* stop_reason = "MAX_TOKENS";
  double prefill_s = 0, decode_s = 0;
  uint64_t logits_hash = 0;
};

void print(const std::string& text) {
  std::fwrite(text.data(), 1, text.size(), stdout);
  std::fflush(stdout);
}

RunResult generate(LoadedModel& model, std::span<const int32_t> prompt, const RunOptions& options) {
  RunResult out;
  LoneSequence sequence(*model.program, prompt.size() + options.max_tokens);
  Sampler sampler(model.program->plan().vocab);
  LogitsHash hash;
  StreamDecoder decoder = decoder_after(prompt, model.tokenizer);
  std::vector<int32_t> history(prompt.begin(), prompt.end());
  const auto begin = Clock::now();
  std::span<const float> logits = sequence.run(prompt);
  const auto decode_begin = Clock::now();
  out.prefill_s = std::chrono::duration<double>(decode_begin - begin).count();
  for (uint32_t index = 0; index < options.max_tokens; ++index) {
    if (const LogitsFault fault = check_logits(logits); fault != LogitsFault::kNone)
      throw RequestError("the run ends", sequence.trace_fault(fault, history, model.backend.device));
    hash.add(logits);
    const int32_t id = sampler.sample(logits, options.sampling, history, index);
    if (std::binary_search(model.eos.begin(), model.eos.end(), id)) {
      out.stop_reason = "EOS";
      break;
    }
    print(decoder.push(id));
    history.push_back(id);
    out.generated.push_back(id);
    if (index + 1 < options.max_tokens) logits = sequence.run(std::span(history).last(1));
  }
  out.decode_s = std::chrono::duration<double>(Clock::now() - decode_begin).count();
  print(decoder.flush() + "\n");
  out.logits_hash = hash.value();
  return out;
}

// The last line. Decoding is what follows the first token; its bytes are those of a step in the middle of it.
void print_figures(LoadedModel& model, const RunResult& result, size_t prompt_tokens) {
  const size_t steps = result.generated.empty() ? 0 : result.generated.size() - 1;
  const Plan& plan = model.program->plan();
  std::string speed = "one step only";
  if (steps > 0) {
    const double rate = static_cast<double>(steps) / result.decode_s;
    const auto context = static_cast<uint32_t>(prompt_tokens + result.generated.size() / 2);
    const double bytes_per_s = rate * decode_bytes(plan, model.program->options().kv, context);
    const double roof = model.device->measure_roof().read_bytes_per_s;
    speed = fmt::format("{:.1f} tok/s, {:.3f} ms/token, {:.2f} GB/s, {:.0f} % of the read roof of {:.1f} GB/s", rate,
                        1e3 / rate, bytes_per_s / 1e9, 100 * bytes_per_s / roof, roof / 1e9);
  }
  print(fmt::format("\n{} tokens after {} ({:.1f} ms), {}, {}, logits xxh3 of all steps {:016x}\n",
                    result.generated.size(), prompt_tokens, result.prefill_s * 1e3, speed, result.stop_reason,
                    result.logits_hash));
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
    print_figures(model, result, prompt.size());
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
  command->callback([options] { run(*options); });
}

}  // namespace llorch
