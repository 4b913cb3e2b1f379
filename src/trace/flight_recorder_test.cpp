// The recorder beside an engine: it keeps up or says what it lost, and nobody waits for it.
#include "trace/flight_recorder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <spdlog/sinks/ostream_sink.h>

#include <future>
#include <sstream>

#include "format/files_for_test.h"
#include "trace/bundle_for_test.h"

namespace llorch {
namespace {

using test::names_in;
using test::some_origin;
using test::some_record;
using testing::HasSubstr;
using testing::Not;

class FlightRecorderTest : public testing::Test {
 protected:
  // Takes n records; what is logged is complete when this returns.
  void record(int n, const RecorderOptions& options = {}) {
    FlightRecorder recorder(BundleFolder(folder_.path(), {}), options, make_origin_, log_);
    for (int i = 0; i < n; ++i) {
      SequenceRecord record = some_record();
      record.id = static_cast<RequestId>(i);
      recorder.take(record);
    }
  }

  const TempDirectory folder_;
  FlightRecorder::OriginMaker make_origin_ = [](const auto&) { return some_origin(); };
  std::ostringstream logged_;
  const Logger log_{LogLevel::info, std::make_shared<spdlog::sinks::ostream_sink_mt>(logged_)};
};

TEST_F(FlightRecorderTest, WritesWhatItTookBeforeItEnds) {
  int made = 0;
  make_origin_ = [&made](const auto&) {
    ++made;
    return some_origin();
  };
  record(3);
  EXPECT_EQ(names_in(folder_.path()).size(), 3u);
  EXPECT_EQ(made, 1) << "the model is hashed once";
  const Bundle bundle = read_bundle(folder_.path() / names_in(folder_.path()).front());
  EXPECT_TRUE(bundle.redacted);
  EXPECT_THAT(logged_.str(), HasSubstr("\"bundle written\""));
  EXPECT_THAT(logged_.str(), HasSubstr("\"end\":\"NUMERIC_FAULT\",\"prompt\":\"redacted\""));
}

TEST_F(FlightRecorderTest, RecordsPromptsIfToldTo) {
  record(1, {.with_prompts = true});
  EXPECT_EQ(read_bundle(folder_.path() / names_in(folder_.path()).front()).record.tokens, some_record().tokens);
  EXPECT_THAT(logged_.str(), HasSubstr("\"prompt\":\"recorded\""));
}

TEST_F(FlightRecorderTest, NothingIsHashedWhereNothingIsRecorded) {
  make_origin_ = [](const auto&) {
    ADD_FAILURE() << "no bundle was written";
    return some_origin();
  };
  record(0);
  EXPECT_EQ(logged_.str(), "");
}

TEST_F(FlightRecorderTest, ASlowDiskCostsRecordsAndNobodysTime) {
  std::promise<void> began, gate;
  make_origin_ = [&](const auto&) {
    began.set_value();
    gate.get_future().wait();
    return some_origin();
  };
  {
    FlightRecorder recorder(BundleFolder(folder_.path(), {}), {.max_queued = 2}, make_origin_, log_);
    recorder.take(some_record());
    began.get_future().wait();  // the first is being written, and is no longer in the queue
    for (RequestId id = 0; id < 7; ++id) {
      SequenceRecord record = some_record();
      record.id = 100 + id;
      recorder.take(record);
    }
    gate.set_value();
  }
  EXPECT_EQ(names_in(folder_.path()).size(), 3u);
  EXPECT_THAT(logged_.str(), HasSubstr("\"error\":\"2 records wait for the disk already\",\"lost\":5"));
}

TEST_F(FlightRecorderTest, ADiskThatFailsIsLoggedAndCounted) {
  make_origin_ = [this](const auto&) {
    std::filesystem::remove_all(folder_.path());
    return some_origin();
  };
  record(2);
  EXPECT_THAT(logged_.str(), HasSubstr("\"bundle lost\""));
  EXPECT_THAT(logged_.str(), HasSubstr("\"lost\":2"));
  EXPECT_THAT(logged_.str(), Not(HasSubstr("bundle written")));
}

TEST_F(FlightRecorderTest, AnOriginThatCannotBeMadeIsTriedAgain) {
  int made = 0;
  make_origin_ = [&made](const auto&) {
    if (made++ == 0) throw Error("the model is gone");
    return some_origin();
  };
  record(2);
  EXPECT_THAT(logged_.str(), HasSubstr("\"error\":\"the model is gone\",\"lost\":1"));
  EXPECT_EQ(names_in(folder_.path()).size(), 1u);
}

TEST_F(FlightRecorderTest, HashingMayGoOnWhileTheWorkerServes) {
  make_origin_ = [](const std::function<bool()>& go_on) {
    EXPECT_TRUE(go_on());
    return some_origin();
  };
  FlightRecorder recorder(BundleFolder(folder_.path(), {}), {}, make_origin_, log_);
  recorder.take(some_record());
}

}  // namespace
}  // namespace llorch
