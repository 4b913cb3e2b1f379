#include "trace/flight_recorder.h"

#include <fmt/format.h>

#include "base/error.h"
#include "base/timestamp.h"

namespace llorch {
namespace {

// How long the worker's end may wait for the hash of its model. 5 s are enough for 10 GB that are in memory.
constexpr std::chrono::seconds kGrace{5};

}  // namespace

FlightRecorder::FlightRecorder(BundleFolder folder, const RecorderOptions& options, OriginMaker make_origin,
                               const Logger& log)
    : folder_(std::move(folder)), options_(options), make_origin_(std::move(make_origin)), log_(log) {
  thread_ = std::thread([this] { loop(); });
}

FlightRecorder::~FlightRecorder() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
    stopped_at_ = std::chrono::steady_clock::now();
    wake_.notify_one();
  }
  thread_.join();
}

void FlightRecorder::take(const SequenceRecord& record) {
  std::pair<SequenceRecord, std::string> taken(record, iso8601_now());
  const std::lock_guard lock(mutex_);
  if (queue_.size() >= options_.max_queued) {
    ++overflowed_;
  } else {
    queue_.push_back(std::move(taken));
  }
  wake_.notify_one();
}

void FlightRecorder::loop() {
  while (true) {
    std::optional<std::pair<SequenceRecord, std::string>> next;
    uint64_t overflowed = 0;
    {
      std::unique_lock lock(mutex_);
      wake_.wait(lock, [this] { return stopping_ || !queue_.empty() || overflowed_ > 0; });
      overflowed = std::exchange(overflowed_, 0);
      if (!queue_.empty()) {
        next = std::move(queue_.front());
        queue_.pop_front();
      }
      if (!next && overflowed == 0) return;  // stopping, and all is written
    }
    if (overflowed > 0) lose(overflowed, fmt::format("{} records wait for the disk already", options_.max_queued));
    if (!next) continue;
    try {
      write(next->first, next->second);
    } catch (const std::exception& error) {
      lose(1, with_causes(error));
    }
  }
}

void FlightRecorder::write(const SequenceRecord& record, const std::string& recorded_at) {
  if (!origin_) {
    origin_ = make_origin_([this] {
      const std::lock_guard lock(mutex_);
      return !stopping_ || std::chrono::steady_clock::now() < stopped_at_ + kGrace;
    });
  }
  const Bundle bundle = make_bundle(*origin_, record, recorded_at, options_.with_prompts);
  const std::filesystem::path path = folder_.add(bundle);
  log_.info("bundle written", {{"bundle", path.string()},
                               {"request", record.id},
                               {"end", end_text(record)},
                               {"prompt", bundle.redacted ? "redacted" : "recorded"}});
}

void FlightRecorder::lose(uint64_t n, const std::string& why) {
  lost_ += n;
  log_.warn("bundle lost", {{"error", why}, {"lost", lost_}});
}

}  // namespace llorch
