#include "trace/through_engine.h"

#include <algorithm>
#include <future>

#include "engine/request_failure.h"

namespace llorch {
namespace {

enum class Who : uint8_t { kWatched, kOther };

// Between an engine and the program under test.
class ObservedProgram final : public Program {
 public:
  ObservedProgram(std::unique_ptr<Program> program, const EngineBench& bench)
      : program_(std::move(program)), bench_(bench) {}

  std::span<const float> run(const Batch& batch) override {
    if (gate_.valid()) gate_.get();
    try {
      const std::span<const float> logits = program_->run(batch);
      logits_.assign(logits.begin(), logits.end());
      for (const Batch::Sequence& s : batch.sequences)
        if (expects_)
          look_at(batch, s);
        else
          sample(batch, s, 0);  // also where the model itself is not finite
    } catch (...) {
      if (!finding_) finding_ = finding_of_exception();
      throw;
    }
    return logits_;
  }
  std::span<const float> trace(const Batch& batch, const StepSet& steps, const StepVisitor& visit) override {
    return program_->trace(batch, steps, visit);
  }
  size_t bytes() const override { return program_->bytes(); }
  const Plan& plan() const override { return program_->plan(); }
  const CompileOptions& options() const override { return program_->options(); }
  const PlacedWeights& weights() const override { return program_->weights(); }

  // While no request is in the engine: the next ones begin at their first tokens, and nothing runs before the gate
  // opens, so that what is submitted together runs together.
  void expect(std::future<void> gate) {
    gate_ = std::move(gate);
    expects_ = true;
    next_[0] = next_[1] = 0;
  }
  std::optional<Finding> take_finding() { return std::move(finding_); }

 private:
  const std::vector<int32_t>& tokens_of(Who who) const {
    return who == Who::kWatched ? bench_.tokens.watched : bench_.tokens.other;
  }
  uint32_t& next_of(Who who) { return next_[static_cast<size_t>(who)]; }

  bool stands_at(Who who, uint32_t at, const Batch& batch, const Batch::Sequence& s) const {
    const std::vector<int32_t>& tokens = tokens_of(who);
    return at + s.n_rows <= tokens.size() &&
           std::equal(tokens.begin() + at, tokens.begin() + at + s.n_rows, batch.tokens.begin() + s.first_row);
  }

  // Whose rows these are, and from which token on. An engine that is wrong may claim another position.
  std::optional<std::pair<Who, uint32_t>> identify(const Batch& batch, const Batch::Sequence& s) {
    for (const Who who : {Who::kWatched, Who::kOther})
      for (const uint32_t at : {next_of(who), 0u})
        if (s.first_position == at && stands_at(who, at, batch, s)) return std::pair{who, at};
    for (const Who who : {Who::kWatched, Who::kOther}) {
      if (stands_at(who, next_of(who), batch, s)) return std::pair{who, next_of(who)};
      for (uint32_t at = 0; at < tokens_of(who).size(); ++at)
        if (stands_at(who, at, batch, s)) return std::pair{who, at};
    }
    return std::nullopt;
  }

  void look_at(const Batch& batch, const Batch::Sequence& s) {
    const auto found = identify(batch, s);
    if (!found) return;
    const auto [who, at] = *found;
    std::string remark;
    if (at != s.first_position)
      remark = fmt::format("the engine gave position {} to the token of position {}", s.first_position, at);
    else if (at > next_of(who))
      remark = fmt::format("the engine's batch begins at position {}: {} never computed", at,
                           at - next_of(who) == 1 ? fmt::format("position {} was", next_of(who))
                                                  : fmt::format("positions {} to {} were", next_of(who), at - 1));
    next_of(who) = at + s.n_rows;
    const std::vector<float> logits = std::move(logits_);
    if (who == Who::kWatched && !finding_) {
      const WatchedRows rows{s.first_row, s.n_rows, at};
      // A batch that is wrong is looked at step by step, also where it wants no logits.
      finding_ = remark.empty() ? bench_.examiner.explain(*program_, batch, rows, logits)
                                : bench_.examiner.trace(*program_, batch, rows);
      if (!remark.empty()) {
        if (!finding_) finding_.emplace();
        finding_->remark = remark;
      }
    }
    logits_ = logits;
    force_next(batch, s, who);
  }

  void force_next(const Batch& batch, const Batch::Sequence& s, Who who) {
    const std::vector<int32_t>& tokens = tokens_of(who);
    const uint32_t next = next_of(who);
    sample(batch, s, next < tokens.size() ? tokens[next] : 0);
  }

  // The logits of this sequence's rows become those of which the token is sampled.
  void sample(const Batch& batch, const Batch::Sequence& s, int32_t token) {
    const uint32_t vocab = plan().vocab;
    for (size_t i = 0; i < batch.logit_rows.size(); ++i) {
      const uint32_t row = batch.logit_rows[i];
      if (row < s.first_row || row >= s.first_row + s.n_rows) continue;
      const auto logits = logits_.begin() + static_cast<ptrdiff_t>(i * vocab);
      std::fill_n(logits, vocab, 0.0f);
      logits[token] = 1.0f;
    }
  }

  const std::unique_ptr<Program> program_;
  const EngineBench& bench_;
  std::future<void> gate_;
  bool expects_ = false;       // the sequences of the bench; before that it is a warm-up
  uint32_t next_[2] = {0, 0};  // positions of each sequence that are computed
  std::vector<float> logits_;
  std::optional<Finding> finding_;
};

struct Asked {
  Who who;
  uint32_t n_prompt;
};

// An engine on a program of its own.
class ObservedEngine {
 public:
  ObservedEngine(const EngineBench& bench, uint32_t n_pages, const EngineOptions& options) : bench_(bench) {
    auto program = std::make_unique<ObservedProgram>(
        bench.compile({.kv = {.n_pages = n_pages, .page_size = kPageSize, .dtype = bench.kv_dtype},
                       .max_rows = kMaxRows,
                       .max_logit_rows = 4,
                       .poison = true}),
        bench);
    program_ = program.get();
    engine_ = std::make_unique<Engine>(std::move(program), options);
  }

  void warm_up() { engine_->warm_up(); }

  // Submits these together; each ends when `length` of its positions are computed. What was found, of all so far.
  std::optional<Finding> run(const std::vector<Asked>& asked, uint32_t length) {
    std::promise<void> gate;
    program_->expect(gate.get_future());
    std::vector<std::future<std::string>> ends;
    for (const auto& [who, n_prompt] : asked) {
      const std::vector<int32_t>& tokens = who == Who::kWatched ? bench_.tokens.watched : bench_.tokens.other;
      Request request;
      request.tokens.assign(tokens.begin(), tokens.begin() + n_prompt);
      request.max_tokens = length - n_prompt + 1;  // the last one is not computed
      request.sampling.temperature = 0.0f;
      const auto ended = std::make_shared<std::promise<std::string>>();
      ends.push_back(ended->get_future());
      engine_->submit(std::move(request), [ended](const Event& event) {
        if (const auto* failed = std::get_if<FailEvent>(&event)) ended->set_value(with_causes(*failed));
        if (std::holds_alternative<FinishEvent>(event)) ended->set_value("");
      });
    }
    gate.set_value();
    std::string failure;
    for (std::future<std::string>& end : ends) {
      const std::string message = end.get();
      if (failure.empty()) failure = message;
    }
    std::optional<Finding> found = program_->take_finding();
    if (!found && !failure.empty()) found.emplace().remark = failure;
    return found;
  }

  static constexpr uint32_t kPageSize = 16, kMaxRows = 64;

 private:
  const EngineBench& bench_;
  ObservedProgram* program_;  // the engine's
  std::unique_ptr<Engine> engine_;
};

constexpr uint32_t kLength = 33, kPages = 8;  // of the pool: both sequences with room to spare

}  // namespace

std::vector<EngineCheck> engine_checks(const EngineBench& bench) {
  const auto n_tokens = static_cast<uint32_t>(bench.tokens.watched.size());
  const uint32_t length = std::min({n_tokens, kLength, bench.context - 1});
  if (length == 0) return {};
  const uint32_t prompt = std::min(5u, length);
  EngineOptions chunked = bench.options;
  chunked.max_prefill_rows = 7;
  std::vector<EngineCheck> checks;
  checks.push_back(
      {CheckKind::kEngine, "engine",
       fmt::format("{} positions through an engine, the prompt at once and in chunks of 7", length),
       [=, &bench]() -> std::optional<Finding> {
         if (auto found = ObservedEngine(bench, kPages, bench.options).run({{Who::kWatched, prompt}}, length))
           return found;
         return ObservedEngine(bench, kPages, chunked).run({{Who::kWatched, length}}, length);
       }});
  checks.push_back({CheckKind::kHistory, "history", "the same after a warm-up, and after another prompt",
                    [=, &bench]() -> std::optional<Finding> {
                      ObservedEngine engine(bench, kPages, bench.options);
                      engine.warm_up();
                      if (auto found = engine.run({{Who::kWatched, prompt}}, length)) return found;
                      if (auto found = engine.run({{Who::kOther, length}}, length)) return found;
                      return engine.run({{Who::kWatched, prompt}}, length);
                    }});
  checks.push_back(
      {CheckKind::kEngine, "engine, two at once", "beside another sequence, prompts in chunks of 7", [=, &bench] {
         return ObservedEngine(bench, kPages, chunked).run({{Who::kOther, length}, {Who::kWatched, prompt}}, length);
       }});
  // Both have two pages and want a third at position 32; there is one.
  const uint32_t half = 20;
  if (length == kLength)
    checks.push_back(
        {CheckKind::kEngine, "engine, preempted", "pages given back to another sequence, computed again", [=, &bench] {
           return ObservedEngine(bench, 5, bench.options).run({{Who::kOther, half}, {Who::kWatched, half}}, length);
         }});
  return checks;
}

}  // namespace llorch
