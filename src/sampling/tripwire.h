// The check on the logits of every step: what must never reach a sampler.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

namespace llorch {

enum class LogitsFault : uint8_t {
  kNone,
  kNan,
  kInfinite,  // of either sign, and no NaN
  kAllEqual,  // as if the last matrix, or all that feeds it, were zero
};

// logits [vocab]; a vocabulary of one id is never kAllEqual. One pass of integer operations, which compilers turn into
// vector instructions. `llorch bench` measures it: 1.2 us for 3520 logits, below 0.1 % of a decoded token of the
// embedded model (EPYC, g++ 12).
LogitsFault check_logits(std::span<const float> logits);

// What the logits do, after "The logits at position 7": "hold NaN", "hold infinity", "are all equal", or "are sound".
std::string_view to_string(LogitsFault fault);

}  // namespace llorch
