#include "sampling/tripwire.h"

#include <algorithm>
#include <bit>

namespace llorch {

LogitsFault check_logits(std::span<const float> logits) {
  constexpr int32_t kInfinityBits = 0x7f800000;
  if (logits.empty()) return LogitsFault::kNone;
  const auto first = std::bit_cast<int32_t>(logits.front());
  int32_t largest = 0;    // of the magnitudes' bits, which are ordered as the magnitudes are, NaN behind infinity
  int32_t different = 0;  // bits that are not those of the first
  for (const float logit : logits) {
    const auto bits = std::bit_cast<int32_t>(logit);
    largest = std::max(largest, bits & 0x7fffffff);
    different |= bits ^ first;
  }
  if (largest > kInfinityBits) return LogitsFault::kNan;
  if (largest == kInfinityBits) return LogitsFault::kInfinite;
  const bool all_equal = different == 0 || largest == 0;  // +0 equals -0
  return all_equal && logits.size() > 1 ? LogitsFault::kAllEqual : LogitsFault::kNone;
}

std::string_view to_string(LogitsFault fault) {
  switch (fault) {
    case LogitsFault::kNone:
      return "are sound";
    case LogitsFault::kNan:
      return "hold NaN";
    case LogitsFault::kInfinite:
      return "hold infinity";
    case LogitsFault::kAllEqual:
      return "are all equal";
  }
  return "";
}

}  // namespace llorch
