// How many tokens a second were generated lately.
#pragma once

#include <chrono>
#include <cstdint>

namespace llorch {

// Counts in buckets of half a second; the rate is over the last full bucket and the current one.
class TokenRate {
 public:
  using Clock = std::chrono::steady_clock;

  void add(uint32_t tokens, Clock::time_point now) {
    if (now - start_ >= 2 * kBucket) {  // nothing happened for a while: these tokens start the clock
      previous_ = current_ = 0;
      previous_start_ = start_ = now;
      return;
    }
    if (now - start_ >= kBucket) {
      previous_ = current_;
      previous_start_ = start_;
      current_ = 0;
      start_ = now;
    }
    current_ += tokens;
  }

  double per_second(Clock::time_point now) const {
    const double seconds = std::chrono::duration<double>(now - previous_start_).count();
    return seconds > 0 ? static_cast<double>(previous_ + current_) / seconds : 0.0;
  }

 private:
  static constexpr std::chrono::milliseconds kBucket{500};
  Clock::time_point previous_start_{}, start_{};
  uint64_t previous_ = 0, current_ = 0;
};

}  // namespace llorch
