// A worker whose model costs nothing: what HTTP, server and engine can carry by themselves. `llorch load` measures it.
// llorch_toy_worker serve --port N --step-us N: so long is it from one step to the next, as a device would take (0: no
// time).
#include <CLI/CLI.hpp>
#include <chrono>
#include <thread>

#include "engine/fake_program_for_test.h"
#include "format/checkpoint.h"
#include "server/server.h"

namespace llorch {
namespace {

constexpr uint32_t kVocab = 304;  // of tests/fixtures/tiny-llama

// Each row's next token follows from its token and position alone, and stands far above all others.
class RushProgram : public FakeProgram {
 public:
  RushProgram(const FakeOptions& options, std::chrono::microseconds step)
      : FakeProgram(options), step_(step), logits_(size_t{kMaxSequences} * kVocab) {}

  static constexpr uint32_t kMaxSequences = 1024;

  std::span<const float> run(const Batch& batch) override {
    for (const size_t peak : peaks_) logits_[peak] = 0;
    peaks_.clear();
    size_t n = 0;
    for (const uint32_t row : batch.logit_rows) {
      const auto sequence = std::upper_bound(batch.sequences.begin(), batch.sequences.end(), row,
                                             [](uint32_t r, const auto& s) { return r < s.first_row; }) -
                            1;
      const uint32_t position = sequence->first_position + row - sequence->first_row;
      const uint64_t next = 3 + mix(static_cast<uint32_t>(batch.tokens[row]) * 4096ull + position) % (kVocab - 3);
      peaks_.push_back(n++ * kVocab + next);
      logits_[peaks_.back()] = 100;
    }
    next_ = std::max(next_ + step_, std::chrono::steady_clock::now());
    std::this_thread::sleep_until(next_);
    return std::span(logits_).first(n * kVocab);
  }

 private:
  const std::chrono::microseconds step_;
  std::chrono::steady_clock::time_point next_;
  std::vector<float> logits_;  // [rows, kVocab]
  std::vector<size_t> peaks_;
};

int serve(uint16_t port, std::chrono::microseconds step) {
  FakeOptions fake;
  fake.vocab = kVocab;
  fake.context = 4096;
  fake.n_pages = 65536;
  fake.max_rows = 2048;
  fake.max_logit_rows = RushProgram::kMaxSequences;
  EngineOptions engine_options;
  engine_options.max_running = RushProgram::kMaxSequences;
  engine_options.max_step_rows = fake.max_rows;
  engine_options.max_prefill_rows = fake.max_rows;
  Engine engine(std::make_unique<RushProgram>(fake, step), engine_options);
  ServedModel model;
  model.name = "toy";
  model.backend = "toy";
  model.numerics = "exact";
  model.context = fake.context;
  ServerOptions options;
  options.port = port;
  options.max_waiting = RushProgram::kMaxSequences;
  const Logger log = Logger::to_stdout(LogLevel::info);
  Server server(options, model, Tokenizer::load(Checkpoint::open(LLORCH_SOURCE_DIR "/tests/fixtures/tiny-llama")),
                engine, log);
  log.info("HTTP server listening", {{"addr", fmt::format("127.0.0.1:{}", server.listen().port())}});
  return server.run() ? 0 : 1;
}

}  // namespace
}  // namespace llorch

int main(int argc, char** argv) {
  CLI::App app("A worker whose model costs nothing.");
  uint16_t port = 0;
  int64_t step_us = 0;
  CLI::App* command = app.add_subcommand("serve")->required();
  command->add_option("--port", port, "0: a free one");
  command->add_option("--step-us", step_us, "From one step to the next");
  CLI11_PARSE(app, argc, argv)
  return llorch::serve(port, std::chrono::microseconds(step_us));
}
