// At most four strings of at most 100 bytes: plain searches are fast enough (below a microsecond a token).
#include "server/stop_matcher.h"

#include <algorithm>
#include <utility>

namespace llorch {

// If a stop string is in text_: notes it, cuts text_ before it.
bool StopMatcher::find_match() {
  const std::string* best = nullptr;
  size_t best_end = 0;
  for (const std::string& stop : stops_) {
    const size_t at = text_.find(stop);
    if (at == std::string::npos) continue;
    const size_t end = at + stop.size();
    if (best == nullptr || end < best_end || (end == best_end && stop.size() > best->size())) {
      best = &stop;
      best_end = end;
    }
  }
  if (best == nullptr) return false;
  matched_ = *best;
  text_.resize(best_end - best->size());
  return true;
}

// Length of the longest end of text_ that begins a stop string.
size_t StopMatcher::held_bytes() const {
  size_t held = 0;
  for (const std::string& stop : stops_) {
    for (size_t n = std::min(text_.size(), stop.size() - 1); n > held; --n) {
      if (text_.compare(text_.size() - n, n, stop, 0, n) == 0) held = n;
    }
  }
  return held;
}

std::string StopMatcher::push(std::string_view text) {
  if (matched_) return {};
  if (stops_.empty()) return std::string(text);
  text_ += text;
  if (find_match()) return std::exchange(text_, {});
  const size_t held = held_bytes();
  std::string certain = text_.substr(0, text_.size() - held);
  text_.erase(0, certain.size());
  return certain;
}

std::string StopMatcher::flush() { return std::exchange(text_, {}); }

}  // namespace llorch
