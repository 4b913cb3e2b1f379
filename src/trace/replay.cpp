#include "trace/replay.h"

#include <fmt/format.h>

#include <algorithm>
#include <future>

#include "engine/engine.h"
#include "engine/request_failure.h"

namespace llorch {
namespace {

std::string hex(uint64_t hash) { return fmt::format("{:016x}", hash); }

std::string counted(size_t n, const char* what) { return fmt::format("{} {}{}", n, what, n == 1 ? "" : "s"); }

// The end of a recorded run that is repeated; one that came from outside is none.
bool fails(const SequenceRecord& record) { return record.failure && is_of_the_run(*record.failure); }

std::string failure_text(const FailEvent& failure) {
  return fmt::format("{}{} at position {}", to_string(failure.code), failure.step ? " in " + failure.step->step : "",
                     failure.position);
}

// What followed the row of generated token `index`.
std::string outcome_text(const SequenceRecord& record, size_t n_generated, size_t index) {
  if (index < n_generated)
    return record.tokens.size() > record.n_prompt + index
               ? fmt::format("token {}", record.tokens[record.n_prompt + index])
               : "a token";
  if (fails(record)) return failure_text(*record.failure);
  return record.finish == FinishReason::kEos ? "EOS" : "its end";
}

// Chunks of a prompt follow from what else runs: where in the prompt a step failed is the same only where the second
// run of a NUMERIC_FAULT found it, which has chunks of its own.
bool same_failure(const FailEvent& a, const FailEvent& b, uint32_t n_prompt) {
  if (a.code != b.code || a.step.has_value() != b.step.has_value()) return false;
  if (a.step && a.step->step != b.step->step) return false;
  const bool in_chunks = a.code != ErrorCode::kNumericFault && a.position < n_prompt && b.position < n_prompt;
  return in_chunks || a.position == b.position;
}

class Comparison {
 public:
  Comparison(const Bundle& bundle, const SequenceRecord& got)
      : bundle_(bundle),
        recorded_(bundle.record),
        got_(got),
        n_got_(got.tokens.size() - got.n_prompt),
        n_rows_(std::min(recorded_.logits_hashes.size(), got.logits_hashes.size())) {}

  std::optional<ReplayDifference> run() const {
    using What = ReplayDifference::What;
    for (size_t i = 0; i < n_rows_; ++i) {
      const uint64_t recorded = recorded_.logits_hashes[i], got = got_.logits_hashes[i];
      if (recorded != got) return at(What::kLogits, i, hex(recorded), hex(got));
      if (!same_outcome(i))
        return at(What::kToken, i, outcome_text(recorded_, bundle_.n_generated, i), outcome_text(got_, n_got_, i));
    }
    if (const size_t most = recorded_.logits_hashes.size(); got_.logits_hashes.size() < most || fails(recorded_)) {
      if (!fails(recorded_) || !fails(got_) || !same_failure(*recorded_.failure, *got_.failure, recorded_.n_prompt))
        return at(What::kFailure, n_rows_, outcome_text(recorded_, bundle_.n_generated, n_rows_),
                  outcome_text(got_, n_got_, n_rows_));
    }
    // Each row depends on the tokens before it, so only the last one has not been looked at.
    const std::span<const int32_t> generated = std::span(got_.tokens).subspan(got_.n_prompt);
    if (bundle_.n_generated > 0 && n_got_ >= bundle_.n_generated &&
        tokens_digest(generated.first(bundle_.n_generated)) != bundle_.generated_digest)
      return at(What::kToken, bundle_.n_generated - 1, "tokens of digest " + hex(bundle_.generated_digest),
                "tokens of digest " + hex(tokens_digest(generated.first(bundle_.n_generated))));
    return std::nullopt;
  }

 private:
  bool same_outcome(size_t i) const {
    const bool goes_on = i < bundle_.n_generated;
    if (goes_on != (i < n_got_)) return false;
    if (!goes_on || bundle_.redacted) return true;
    return recorded_.tokens[recorded_.n_prompt + i] == got_.tokens[got_.n_prompt + i];
  }

  // A hash is of all rows so far: where it is the same again, all rows before were.
  ReplayDifference at(ReplayDifference::What what, size_t i, std::string recorded, std::string got) const {
    bool agrees_again = false;
    for (size_t j = i + 1; j < n_rows_; ++j)
      agrees_again = agrees_again || recorded_.logits_hashes[j] == got_.logits_hashes[j];
    const auto index = static_cast<uint32_t>(i);
    return {what, index, recorded_.n_prompt - 1 + index, std::move(recorded), std::move(got), agrees_again};
  }

  const Bundle& bundle_;
  const SequenceRecord& recorded_;
  const SequenceRecord& got_;
  size_t n_got_;   // tokens that were generated
  size_t n_rows_;  // that both sides have
};

std::string reproduced_text(const Bundle& bundle) {
  const SequenceRecord& record = bundle.record;
  std::string text = "reproduced: ";
  if (bundle.n_generated > 0 || !fails(record))
    text += counted(bundle.n_generated, "token") + ", the same logits bit for bit";
  if (fails(record))
    text +=
        fmt::format("{}{}", bundle.n_generated > 0 ? ", then " : "before any token ", failure_text(*record.failure));
  else if (record.failure || record.finish == FinishReason::kCancelled)
    text += fmt::format("; its end ({}) came from outside and is not replayed", end_text(record));
  return text;
}

}  // namespace

bool is_of_the_run(const FailEvent& failure) {
  return failure.code != ErrorCode::kCancelled && failure.code != ErrorCode::kTimeout;
}

CompileOptions replay_options(const Bundle& bundle) {
  CompileOptions options;
  options.kv = bundle.origin.kv;
  options.kv.n_pages = (bundle.n_positions() + options.kv.page_size - 1) / options.kv.page_size;
  options.max_rows = bundle.origin.max_rows;
  options.max_logit_rows = 1;
  return options;
}

SequenceRecord replay(std::unique_ptr<Program> program, const Bundle& bundle, const std::vector<int32_t>& prompt,
                      const std::string& device) {
  std::optional<SequenceRecord> record;
  EngineOptions options;
  options.max_step_rows = bundle.origin.max_step_rows;
  options.max_prefill_rows = bundle.origin.max_prefill_rows;
  options.max_running = 1;
  options.device = device;
  options.on_record = [&record](const SequenceRecord& ended) { record = ended; };
  Engine engine(std::move(program), options);
  Request request;
  request.tokens = prompt;
  request.sampling = bundle.record.sampling;
  request.eos = bundle.record.eos;
  request.record = true;
  // A row more, where the recorded run failed: whether it fails again.
  request.max_tokens = static_cast<uint32_t>(bundle.record.logits_hashes.size()) + (fails(bundle.record) ? 1 : 0);
  if (const auto refusal = engine.refusal(request)) throw CodedError(refusal->code, refusal->message);
  std::promise<Event> ended;
  engine.submit(std::move(request), [&ended](const Event& event) {
    if (std::holds_alternative<FinishEvent>(event) || std::holds_alternative<FailEvent>(event)) ended.set_value(event);
  });
  const Event end = ended.get_future().get();
  engine.stop();
  if (record) return *record;
  throw RequestError("the replay has not begun", std::get<FailEvent>(end));
}

std::optional<ReplayDifference> first_difference(const Bundle& bundle, const SequenceRecord& got) {
  return Comparison(bundle, got).run();
}

std::string_view to_string(ReplayDifference::What what) {
  switch (what) {
    case ReplayDifference::What::kLogits:
      return "logits";
    case ReplayDifference::What::kToken:
      return "token";
    case ReplayDifference::What::kFailure:
      return "failure";
  }
  return "";
}

std::string verdict_text(const Bundle& bundle, const std::optional<ReplayDifference>& difference) {
  if (!difference) return reproduced_text(bundle);
  const ReplayDifference& d = *difference;
  std::string text = fmt::format("not reproduced: {} are the same, ", counted(d.index, "token"));
  switch (d.what) {
    case ReplayDifference::What::kLogits:
      text +=
          fmt::format("then the logits at position {} differ: recorded hash {}, got {}", d.position, d.recorded, d.got);
      break;
    case ReplayDifference::What::kToken:
      text += fmt::format("then the logits at position {} are too, but recorded is {}, got {}", d.position, d.recorded,
                          d.got);
      break;
    case ReplayDifference::What::kFailure:
      text += fmt::format("then at position {} recorded is {}, got {}", d.position, d.recorded, d.got);
      break;
  }
  if (d.record_changed) text += "; what follows agrees again, so the run is the same and the bundle was changed here";
  return text;
}

}  // namespace llorch
