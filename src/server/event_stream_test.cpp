// Events of one request as SSE frames.
#include "server/event_stream.h"

#include <gtest/gtest.h>

#include "format/checkpoint.h"

namespace llorch {
namespace {

using nlohmann::json;
using Clock = EventStream::Clock;

class EventStreamTest : public testing::Test {
 protected:
  EventStreamTest() : tokenizer_(Tokenizer::load(Checkpoint::open(LLORCH_SOURCE_DIR "/tests/fixtures/tiny-llama"))) {
    job_.request.job_id = "job";
    job_.request.max_tokens = 100;
    job_.engine_request.tokens = {0, 5};
    model_.name = "tiny";
    model_.backend = "cpu";
    model_.numerics = "exact";
    model_.vram_bytes = 77;
  }

  // The frames of these tokens and this end, one event after the other.
  std::vector<json> frames(const std::string& text, const Event& last) {
    EventStream stream(model_, tokenizer_, job_, std::chrono::hours(1));
    std::string out;
    stream.write(StartEvent{}, now_, out);
    uint32_t index = 0;
    for (const int32_t id : tokenizer_->encode(text, false)) stream.write(TokenEvent{id, index++}, now_, out);
    stream.write(last, now_, out);
    stream.write(TokenEvent{9, index}, now_, out);  // nothing comes after the end
    EXPECT_TRUE(stream.ended());
    return parse(out);
  }

  static std::vector<json> parse(const std::string& out) {
    std::vector<json> list;
    for (size_t at = 0; at < out.size();) {
      const size_t end = out.find("\n\n", at);
      EXPECT_EQ(out.compare(at, 6, "data: "), 0);
      list.push_back(json::parse(out.substr(at + 6, end - at - 6)));
      at = end + 2;
    }
    return list;
  }

  static std::string text_of(const std::vector<json>& events) {
    std::string text;
    for (const json& event : events) {
      if (event["type"] == "token") text += event["t"].get<std::string>();
    }
    return text;
  }

  static FinishEvent finish(FinishReason reason) { return {reason, 0, 0, 12.4}; }

  std::shared_ptr<const Tokenizer> tokenizer_;
  PreparedJob job_;
  ServedModel model_;
  Clock::time_point now_ = Clock::now();
};

TEST_F(EventStreamTest, EventsComeInTheContractsOrderAndForm) {
  const auto events = frames("the fox", finish(FinishReason::kEos));
  ASSERT_GE(events.size(), 4u);
  const json& started = events.front();
  EXPECT_EQ(started["type"], "started");
  EXPECT_EQ(started["job_id"], "job");
  EXPECT_EQ(started["model"], "tiny");
  EXPECT_EQ(started["backend"], "cpu");
  EXPECT_EQ(started["numerics"], "exact");
  EXPECT_EQ(started["prompt_tokens"], 2);
  EXPECT_EQ(started["started_at"].get<std::string>().back(), 'Z');
  for (size_t i = 1; i + 2 < events.size(); ++i) {
    EXPECT_EQ(events[i]["type"], "token");
    EXPECT_EQ(events[i]["i"], i - 1);
    EXPECT_TRUE(events[i]["id"].is_number_integer());
  }
  const json& metrics = events[events.size() - 2];
  EXPECT_EQ(metrics["type"], "metrics");
  EXPECT_EQ(metrics["vram_bytes"], 77);
  EXPECT_EQ(events.back(),
            (json{{"type", "end"}, {"tokens_out", events.size() - 3}, {"decode_time_ms", 12}, {"stop_reason", "EOS"}}));
  EXPECT_EQ(text_of(events), "the fox");
}

TEST_F(EventStreamTest, HalfACharacterWaitsAndItsTokensAreEmpty) {
  const auto events = frames("añb", finish(FinishReason::kMaxTokens));  // ñ is two byte tokens here
  EXPECT_EQ(events[2]["t"], "");
  EXPECT_EQ(events[3]["t"], "ñ");
  EXPECT_EQ(text_of(events), "añb");
}

TEST_F(EventStreamTest, TextThatWaitsAtTheEndComesWithTheLastIndex) {
  EventStream stream(model_, tokenizer_, job_, std::chrono::hours(1));
  std::string out;
  stream.write(StartEvent{}, now_, out);
  const int32_t half = tokenizer_->encode("ñ", false).front();
  stream.write(TokenEvent{half, 0}, now_, out);
  stream.write(finish(FinishReason::kEos), now_, out);
  const auto events = parse(out);
  EXPECT_EQ(events[1]["t"], "");
  EXPECT_EQ(events[2], (json{{"type", "token"}, {"t", "\uFFFD"}, {"i", 0}, {"id", half}}));
  EXPECT_EQ(events.back()["tokens_out"], 1);
}

TEST_F(EventStreamTest, TheLastOfMaxTokensBringsItsTextWithIt) {
  job_.request.max_tokens = 1;
  job_.request.stop = {"ab"};
  const auto events = frames("a", finish(FinishReason::kMaxTokens));
  EXPECT_EQ(events[1]["t"], "a");
  EXPECT_EQ(events[2]["type"], "metrics");
}

TEST_F(EventStreamTest, AStopStringAcrossTokensEndsTheTextBeforeIt) {
  job_.request.stop = {"f", "owl s"};
  const auto all = tokenizer_->encode("the owl said that", false);
  EventStream stream(model_, tokenizer_, job_, std::chrono::hours(1));
  std::string out;
  stream.write(StartEvent{}, now_, out);
  uint32_t index = 0;
  while (!stream.wants_cancel()) stream.write(TokenEvent{all[index], index}, now_, out), ++index;
  stream.write(TokenEvent{all[index], index}, now_, out);  // sampled before the cancel arrived
  stream.write(finish(FinishReason::kCancelled), now_, out);
  const auto events = parse(out);
  EXPECT_EQ(text_of(events), "the ");
  EXPECT_EQ(events.back()["stop_reason"], "STOP_SEQUENCE");
  EXPECT_EQ(events.back()["stop_sequence_matched"], "owl s");
  EXPECT_EQ(events.back()["tokens_out"], index);
}

TEST_F(EventStreamTest, AFailureAfterAStopStringIsStillTheEnd) {
  job_.request.stop = {"x"};
  const auto events = frames("x", FailEvent{ErrorCode::kTimeout, "too late", {}, 0, 0, 0, {}});
  EXPECT_EQ(events.back()["stop_reason"], "STOP_SEQUENCE");
}

TEST_F(EventStreamTest, ErrorsNameThePlace) {
  FailEvent failure{ErrorCode::kInferenceFailed, "a step failed.", {}, 17, 18, 0, {"no launch", "error 999"}};
  failure.step = StepFailure{"layers.3.attn_out", "Linear", "[5, 2048] x [2048, 2048]", "cpu0"};
  const auto events = frames("a", failure);
  const json& error = events.back();
  EXPECT_EQ(error["type"], "error");
  EXPECT_EQ(error["code"], "INFERENCE_FAILED");
  EXPECT_EQ(error["step"], "layers.3.attn_out");
  EXPECT_EQ(error["layer"], 3);
  EXPECT_EQ(error["shapes"], "[5, 2048] x [2048, 2048]");
  EXPECT_EQ(error["dtype"], "f32");
  EXPECT_EQ(error["cause"], json({"no launch", "error 999"}));
  EXPECT_EQ(error["position"], 17);
  EXPECT_EQ(error["kv_len"], 18);
  EXPECT_EQ(error["retriable"], true);
  EXPECT_EQ(error["hint"], info(ErrorCode::kInferenceFailed).remedy);
}

TEST_F(EventStreamTest, MetricsComeAtTheirInterval) {
  EventStream stream(model_, tokenizer_, job_, std::chrono::milliseconds(100));
  std::string out;
  stream.write(StartEvent{}, now_, out);
  for (uint32_t i = 0; i < 10; ++i) stream.write(TokenEvent{70, i}, now_ + i * std::chrono::milliseconds(50), out);
  int metrics = 0;
  for (const json& event : parse(out)) {
    if (event["type"] != "metrics") continue;
    ++metrics;
    EXPECT_DOUBLE_EQ(event["tokens_per_sec"].get<double>(), 20.0);
  }
  EXPECT_EQ(metrics, 4);
}

}  // namespace
}  // namespace llorch
