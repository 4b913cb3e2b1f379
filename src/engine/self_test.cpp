// The probe sequence, the histories laid over a program before it, and the comparison of their logits.
#include "engine/self_test.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <future>
#include <optional>
#include <utility>

#include "engine/request_failure.h"

namespace llorch {
namespace {

using Clock = std::chrono::steady_clock;

// The longest sequence of the test has so many positions.
constexpr uint32_t kPositions = 32;

// The estimate is made after so many steps of the first run: one prefill, then decodes.
constexpr size_t kMeasuredSteps = 4;

// Steps that the test takes: see SelfTest.TakesTheStepsThatItsEstimateCounts.
constexpr double kDecodeSteps = 70, kPrefills = 12;

double ms_since(Clock::time_point start) {
  return std::chrono::duration<double, std::milli>(Clock::now() - start).count();
}

// A program of someone else's, with a step that can be made to fail in its middle.
class LentProgram final : public Program {
 public:
  LentProgram(Program& program, std::shared_ptr<std::atomic<bool>> fail_next)
      : program_(program), fail_next_(std::move(fail_next)) {}

  std::span<const float> run(const Batch& batch) override { return program_.run(batch); }
  void start(const Batch& batch, std::span<const RowSampling> rows) override {
    if (!fail_next_->exchange(false)) return program_.start(batch, rows);
    StepSet middle(plan().steps.size());
    middle[middle.size() / 2] = true;
    program_.trace(batch, middle, [](size_t, std::span<const float>) { fail("an error that the self-test planned"); });
    LLORCH_CHECK(false, "the planned error did not occur");
  }
  std::span<const SampledRow> finish() override { return program_.finish(); }
  std::span<const float> trace(const Batch& batch, const StepSet& steps, const StepVisitor& visit) override {
    return program_.trace(batch, steps, visit);
  }
  size_t bytes() const override { return program_.bytes(); }
  const PlacedWeights& weights() const override { return program_.weights(); }
  const Plan& plan() const override { return program_.plan(); }
  const CompileOptions& options() const override { return program_.options(); }

 private:
  Program& program_;
  std::shared_ptr<std::atomic<bool>> fail_next_;
};

// How a request went.
struct Answer {
  std::vector<uint64_t> hashes;  // of the logits up to each token
  std::optional<FailEvent> failed;
  bool cancelled = false;
};

// On the engine thread, before the event is counted.
using OnEvent = std::function<void(const Event&, RequestId)>;

// The engine must not be stopped yet: its thread then waits until submit() has told the id.
std::future<Answer> ask(Engine& engine, Request request, const OnEvent& on_event = {}) {
  struct Pending {
    Answer answer;
    std::promise<Answer> promise;
    std::promise<RequestId> id;
  };
  const auto pending = std::make_shared<Pending>();
  const auto id = pending->id.get_future().share();
  const RequestId submitted = engine.submit(std::move(request), [pending, id, on_event](const Event& event) {
    if (on_event) on_event(event, id.get());
    Answer& answer = pending->answer;
    if (const auto* token = std::get_if<TokenEvent>(&event)) answer.hashes.push_back(token->logits_hash);
    if (const auto* failed = std::get_if<FailEvent>(&event)) answer.failed = *failed;
    if (const auto* finish = std::get_if<FinishEvent>(&event))
      answer.cancelled = finish->reason == FinishReason::kCancelled;
    if (answer.failed || std::holds_alternative<FinishEvent>(event)) pending->promise.set_value(answer);
  });
  pending->id.set_value(submitted);
  return pending->promise.get_future();
}

Request request_of(uint32_t vocab, uint32_t seed, uint32_t n_prompt, uint32_t max_tokens) {
  LLORCH_CHECK(n_prompt + max_tokens <= kPositions);
  Request request;
  for (uint32_t i = 0; i < n_prompt; ++i)
    request.tokens.push_back(static_cast<int32_t>((uint64_t{seed * 64 + i + 1} * 2654435761u >> 7) % vocab));
  request.max_tokens = max_tokens;
  request.sampling.seed = seed;
  return request;
}

class Test {
 public:
  Test(Program& program, const SelfTestOptions& options)
      : program_(program),
        vocab_(program.plan().vocab),
        probe_(request_of(vocab_, 0, 13, 8)),
        fail_next_(std::make_shared<std::atomic<bool>>(false)),
        engine_options_(options.engine) {
    engine_options_.on_record = {};  // the planned error is nobody's failure
  }

  SelfTest run(const ProgramMaker& make_program, double limit_ms) {
    const auto begin = Clock::now();
    Engine engine(std::make_unique<LentProgram>(program_, fail_next_), engine_options_);
    if (!first_run(engine, limit_ms)) return result_;
    engine.warm_up();
    expect_same("a warm-up", ask(engine, probe_).get());
    among_others(engine);
    expect_same("other requests", ask(engine, probe_).get());
    with_a_failed_step(engine);
    expect_same("an error in a step", ask(engine, probe_).get());
    with_a_cancel(engine);
    expect_same("a cancelled request", ask(engine, probe_).get());
    engine.stop();
    with_a_preemption(make_program);
    result_.ms = ms_since(begin);
    return result_;
  }

 private:
  // The answer that all others are held against. Its first steps tell how long the rest takes; false if too long.
  bool first_run(Engine& engine, double limit_ms) {
    const auto begin = Clock::now();
    std::vector<double> at_ms;  // of each token
    const Answer answer = ask(engine, probe_, [&](const Event& event, RequestId id) {
                            if (!std::holds_alternative<TokenEvent>(event)) return;
                            at_ms.push_back(ms_since(begin));
                            if (at_ms.size() != kMeasuredSteps) return;
                            result_.estimated_ms = estimate(at_ms);
                            if (result_.estimated_ms > limit_ms) engine.cancel(id);
                          }).get();
    if (answer.failed) throw RequestError("Self-test: the first run failed", *answer.failed);
    first_ = answer.hashes;
    if (answer.cancelled)
      result_.skipped = fmt::format("it would take about {:.0f} ms, more than {:.0f}", result_.estimated_ms, limit_ms);
    return !answer.cancelled;
  }

  // First steps are slow (memory is touched for the first time), so the fastest decode counts, and a prefill as no more
  // than its tokens one at a time.
  double estimate(const std::vector<double>& token_at_ms) const {
    double decode_ms = std::numeric_limits<double>::infinity();
    for (size_t i = 1; i < token_at_ms.size(); ++i)
      decode_ms = std::min(decode_ms, token_at_ms[i] - token_at_ms[i - 1]);
    const double prefill_ms = std::min(token_at_ms.front(), static_cast<double>(probe_.tokens.size()) * decode_ms);
    return kPrefills * prefill_ms + kDecodeSteps * decode_ms;
  }

  // The first one's start brings the rest, so that all are in the same batches however slow this thread is.
  void among_others(Engine& engine) {
    std::vector<std::future<Answer>> others;
    std::future<Answer> probe;
    const Answer first = ask(engine, request_of(vocab_, 1, 5, 10), [&](const Event& event, RequestId) {
                           if (!std::holds_alternative<StartEvent>(event)) return;
                           others.push_back(ask(engine, request_of(vocab_, 2, 20, 6)));
                           probe = ask(engine, probe_);
                           others.push_back(ask(engine, request_of(vocab_, 3, 9, 8)));
                         }).get();
    if (first.failed) throw RequestError("Self-test: a request beside others failed", *first.failed);
    expect_same("requests that ran beside it", probe.get());
    for (auto& other : others)
      if (const Answer answer = other.get(); answer.failed)
        throw RequestError("Self-test: a request beside others failed", *answer.failed);
  }

  void with_a_failed_step(Engine& engine) {
    *fail_next_ = true;
    const Answer answer = ask(engine, request_of(vocab_, 4, 9, 8)).get();
    LLORCH_CHECK(answer.failed.has_value(), "the planned error in a step hurt nobody");
  }

  void with_a_cancel(Engine& engine) {
    const Answer answer = ask(engine, request_of(vocab_, 5, 9, 16), [&](const Event& event, RequestId id) {
                            const auto* token = std::get_if<TokenEvent>(&event);
                            if (token != nullptr && token->index == 1) engine.cancel(id);
                          }).get();
    if (answer.failed) throw RequestError("Self-test: a request that was to be cancelled failed", *answer.failed);
    LLORCH_CHECK(answer.cancelled, "the planned cancel did not occur");
  }

  // Three pages of 16. The older request takes its second page after 3 tokens; when the probe needs its own second
  // page, after 4, there is none, and it is computed again once the older one has ended.
  void with_a_preemption(const ProgramMaker& make_program) {
    EngineOptions options;
    options.fault_keep_positions = engine_options_.fault_keep_positions;
    Engine engine(make_program(self_test_program(program_.options().kv.dtype)), options);
    std::future<Answer> probe;
    const Answer older = ask(engine, request_of(vocab_, 6, 14, 12), [&](const Event& event, RequestId) {
                           if (std::holds_alternative<StartEvent>(event)) probe = ask(engine, probe_);
                         }).get();
    if (older.failed) throw RequestError("Self-test: a request that preempts another failed", *older.failed);
    expect_same("a preemption", probe.get());
    LLORCH_CHECK(engine.stats().preemptions > 0, "the planned preemption did not occur");
  }

  void expect_same(const std::string& history, const Answer& answer) {
    if (answer.failed) throw RequestError(fmt::format("Self-test: after {} a request failed", history), *answer.failed);
    const auto [mine, other] = std::mismatch(first_.begin(), first_.end(), answer.hashes.begin(), answer.hashes.end());
    if (mine != first_.end() || other != answer.hashes.end())
      throw CodedError(ErrorCode::kSelfTestFailed,
                       fmt::format("Self-test: after {} the logits at position {} are not those of the first run.",
                                   history, probe_.tokens.size() - 1 + static_cast<size_t>(mine - first_.begin())));
    result_.histories.push_back(history);
  }

  Program& program_;
  const uint32_t vocab_;
  const Request probe_;
  const std::shared_ptr<std::atomic<bool>> fail_next_;
  EngineOptions engine_options_;
  std::vector<uint64_t> first_;
  SelfTest result_;
};

}  // namespace

CompileOptions self_test_program(DType kv_dtype) {
  CompileOptions small;
  small.kv = {.n_pages = 3, .page_size = 16, .dtype = kv_dtype};
  small.max_rows = kPositions;
  small.max_logit_rows = 2;
  return small;
}

SelfTest self_test(Program& program, const ProgramMaker& make_program, const SelfTestOptions& options) {
  const KvShape& kv = program.options().kv;
  const uint32_t context = options.engine.context == 0 ? program.plan().context() : options.engine.context;
  if (const uint64_t most = std::min<uint64_t>(context, uint64_t{kv.n_pages} * kv.page_size); most < kPositions) {
    SelfTest result;
    result.skipped = fmt::format("it needs sequences of {} positions, and there are {}", kPositions, most);
    return result;
  }
  return Test(program, options).run(make_program, options.limit_ms);
}

}  // namespace llorch
