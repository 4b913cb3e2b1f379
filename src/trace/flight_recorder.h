// The flight recorder of a worker: what the engine remembers of a request at its end becomes a file, on a thread of the
// recorder's own.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <utility>

#include "base/log.h"
#include "trace/bundle_file.h"

namespace llorch {

struct RecorderOptions {
  bool with_prompts = false;
  size_t max_queued = 64;  // records that wait for the disk; more are lost, and counted
};

class FlightRecorder {
 public:
  // Called once, before the first bundle is written: it may read the whole model. It should come to an end soon once
  // go_on says no: the worker waits for it in order to end.
  using OriginMaker = std::function<BundleOrigin(const std::function<bool()>& go_on)>;

  FlightRecorder(BundleFolder folder, const RecorderOptions& options, OriginMaker make_origin, const Logger& log);
  ~FlightRecorder();  // writes what waits
  FlightRecorder(const FlightRecorder&) = delete;
  FlightRecorder& operator=(const FlightRecorder&) = delete;

  // Any thread; copies the record and returns: waits for no disk and no log. What cannot be written is logged, with
  // how many have been lost so far, and hurts nobody.
  void take(const SequenceRecord& record);

 private:
  void loop();
  void write(const SequenceRecord& record, const std::string& recorded_at);
  void lose(uint64_t n, const std::string& why);

  const BundleFolder folder_;
  const RecorderOptions options_;
  const OriginMaker make_origin_;
  const Logger& log_;
  std::optional<BundleOrigin> origin_;  // recorder's thread only, as is the next
  uint64_t lost_ = 0;

  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<std::pair<SequenceRecord, std::string>> queue_;  // each with its time
  uint64_t overflowed_ = 0;                                   // since the recorder last looked
  bool stopping_ = false;
  std::chrono::steady_clock::time_point stopped_at_;
  std::thread thread_;
};

}  // namespace llorch
