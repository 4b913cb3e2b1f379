// Steps in flight: what is started, finished and told in which order.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include "engine/client_for_test.h"
#include "engine/engine.h"
#include "engine/fake_program_for_test.h"

namespace llorch {
namespace {

Request make_request(float repetition_penalty = 1.0f) {
  Request request;
  request.tokens = {1, 2, 3, 4, 5};
  request.max_tokens = 3;
  request.sampling.repetition_penalty = repetition_penalty;
  return request;
}

// Tells what is done to it; the start after n_starts others throws.
struct Device : FakeProgram {
  Device(FakeOptions options, std::vector<std::string>& history, size_t n_starts = 99)
      : FakeProgram(std::move(options)), history_(history), n_starts_(n_starts) {}
  void start(const Batch& batch, std::span<const RowSampling> rows) override {
    history_.emplace_back("start");
    if (n_starts_-- == 0) throw Error("no start (injected)");
    FakeProgram::start(batch, rows);
  }
  std::span<const SampledRow> finish() override {
    history_.emplace_back("finish");
    return FakeProgram::finish();
  }
  std::vector<std::string>& history_;
  size_t n_starts_;
};

std::vector<std::string> history_of(const Request& request, uint32_t max_in_flight, size_t n_starts = 99) {
  std::vector<std::string> history;
  FakeOptions fake;
  fake.max_in_flight = max_in_flight;
  Engine engine(std::make_unique<Device>(fake, history, n_starts), {});
  const Client client(engine, request, [&](const Event& event) {
    if (const auto* token = std::get_if<TokenEvent>(&event)) history.push_back(fmt::format("token {}", token->index));
    if (std::holds_alternative<FinishEvent>(event)) history.emplace_back("end");
    if (std::holds_alternative<FailEvent>(event)) history.emplace_back("failed");
  });
  client.wait();
  if (n_starts == 99) {
    EXPECT_EQ(client.result(), fake_result(request, 50));
  }
  engine.stop();  // the sink of the end has returned
  return history;
}

using Strings = std::vector<std::string>;

// Sinks hear of a step's tokens while the program computes the next step.
TEST(Flight, TellsTokensWhileTheNextStepRuns) {
  EXPECT_EQ(history_of(make_request(), 1),
            (Strings{"start", "finish", "start", "token 0", "finish", "start", "token 1", "finish", "token 2", "end"}));
}

// Behind a step of decodes the next one is started before that ends, if the program can: not behind the prompt, and
// none for tokens beyond max_tokens.
TEST(Flight, StartsAStepWhileDecodesRun) {
  EXPECT_EQ(history_of(make_request(), 2),
            (Strings{"start", "finish", "start", "start", "token 0", "finish", "token 1", "finish", "token 2", "end"}));
}

// A repetition penalty needs the tokens before.
TEST(Flight, APenaltyWaitsForTheTokens) {
  const Request request = make_request(1.5f);
  EXPECT_EQ(history_of(request, 2), history_of(request, 1));
}

// The step before one that cannot be started gives its token.
TEST(Flight, AStepThatCannotStartLosesNoTokenOfTheOneBefore) {
  EXPECT_EQ(history_of(make_request(), 2, 2),
            (Strings{"start", "finish", "start", "start", "token 0", "finish", "token 1", "failed"}));
}

// Records have the tokens that were told, whatever was in flight: in a step that fails, when the device is lost, and
// when a bug (a finish() without rows) ends everything.
TEST(Flight, ARecordHasNoTokenThatNobodyKnows) {
  struct Broken : FakeProgram {
    explicit Broken(std::optional<ErrorCode> code) : FakeProgram(FakeOptions()), code_(code) {}
    std::span<const SampledRow> finish() override {
      const std::span<const SampledRow> rows = FakeProgram::finish();
      if (n_left_-- > 0) return rows;
      if (code_) throw CodedError(*code_, "injected");
      return {};
    }
    std::optional<ErrorCode> code_;
    int n_left_ = 2;
  };
  for (const std::optional<ErrorCode> code : {std::optional(ErrorCode::kInferenceFailed),
                                              std::optional(ErrorCode::kDeviceLost), std::optional<ErrorCode>()}) {
    std::vector<int32_t> recorded;
    EngineOptions options;
    options.on_record = [&](const SequenceRecord& record) { recorded = record.tokens; };
    Engine engine(std::make_unique<Broken>(code), options);
    Request request = make_request();
    request.max_tokens = 9;
    const Client client(engine, request);
    EXPECT_FALSE(client.code().empty());
    engine.stop();
    std::vector<int32_t> told = request.tokens;
    told.insert(told.end(), client.tokens().begin(), client.tokens().end());
    EXPECT_EQ(recorded, told);
    EXPECT_EQ(client.tokens().size(), 2u);
  }
}

}  // namespace
}  // namespace llorch
