// Injected faults for tests: named points that fail when the environment says so. Compiled to nothing without
// LLORCH_FAULTS (CMake; on in the presets that test).
#pragma once

#include <string_view>

#ifdef LLORCH_FAULTS
#include <atomic>
#include <cstdint>
#include <deque>
#include <string>
#include <utility>
#endif

namespace llorch {

#ifdef LLORCH_FAULTS

// What LLORCH_FAULT lists, separated by commas: POINT[/STEP][@serving]:N. The point fails the Nth time that it is
// passed. STEP: only there. @serving: counted from the moment at which the worker listens, without load and warm-up.
class FaultList {
 public:
  explicit FaultList(const std::string& text);  // throws Error naming the entry that is not of this form

  bool fires(std::string_view point, std::string_view step);  // any thread
  void begin_serving() { serving_ = true; }

 private:
  struct Entry {
    Entry(std::string at, std::string in_step, bool serving, uint64_t nth)
        : point(std::move(at)), step(std::move(in_step)), serving_only(serving), n(nth) {}
    std::string point, step;
    bool serving_only;
    uint64_t n;
    std::atomic<uint64_t> passed{0};
  };
  std::deque<Entry> entries_;
  std::atomic<bool> serving_{false};
};

// Whether this point is to fail now; LLORCH_FAULT is read once. The points are listed in docs/errors.md.
bool fault(std::string_view point, std::string_view step = {});

// From here on @serving counts.
void begin_serving_faults();

#else

constexpr bool fault(std::string_view, std::string_view = {}) { return false; }
constexpr void begin_serving_faults() {}

#endif

}  // namespace llorch
