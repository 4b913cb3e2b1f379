// A row of logits on its way to a token: what the token is drawn with, and what is known of the row afterwards.
#pragma once

#include <cstdint>
#include <span>

#include "base/host_device.h"
#include "sampling/params.h"
#include "sampling/tripwire.h"

namespace llorch {

inline constexpr int32_t kNoToken = -1;

// A token that is not known yet, because the step in flight samples it: that of its row `row` of logits.
LLORCH_HD constexpr int32_t token_of_row_in_flight(uint32_t row) { return -2 - static_cast<int32_t>(row); }
LLORCH_HD constexpr bool is_in_flight(int32_t token) { return token <= -2; }
LLORCH_HD constexpr uint32_t row_in_flight(int32_t token) { return static_cast<uint32_t>(-2 - token); }

struct RowSampling {
  SamplingParams params;
  std::span<const int32_t> history;  // prompt and generated tokens: read if there is a repetition penalty
  uint32_t index = 0;                // of the token that is drawn, among the generated ones
};

struct SampledRow {
  int32_t token = kNoToken;  // kNoToken if there is a fault
  LogitsFault fault = LogitsFault::kNone;
  uint64_t hash = 0;  // hash_of_row(), of sound and of faulty logits
};

}  // namespace llorch
