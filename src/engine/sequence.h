// One request inside the engine: its token ids, its pages, and how far they are filled.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "backend/backend.h"
#include "engine/request.h"
#include "sampling/logits_hash.h"

namespace llorch {

inline double ms_between(std::chrono::steady_clock::time_point from, std::chrono::steady_clock::time_point to) {
  return std::chrono::duration<double, std::milli>(to - from).count();
}

// The position of a token is its index in tokens; nothing else counts positions. Prefill, decode and recomputing after
// a preemption are the same: positions n_computed .. tokens.size() - 1 are to run, and the last one wants logits.
struct Sequence {
  Sequence(RequestId request_id, Request r, EventSink event_sink)
      : id(request_id),
        request(std::move(r)),
        sink(std::move(event_sink)),
        tokens(std::move(request.tokens)),
        n_prompt(static_cast<uint32_t>(tokens.size())) {}

  RequestId id;
  Request request;  // its tokens moved to the member below
  EventSink sink;
  std::vector<int32_t> tokens;  // prompt, then generated
  uint32_t n_prompt;
  uint32_t n_unknown = 0;  // the last tokens, which steps in flight sample: token_of_row_in_flight() until they end
  std::vector<uint32_t> pages;          // page j holds positions [j * page_size, ...)
  uint32_t n_computed = 0;              // positions whose K and V are in the pages when what is in flight has ended
  LogitsHash logits_hash;               // of the rows that were sampled
  std::vector<uint64_t> logits_hashes;  // its value after each of them

  bool started = false;
  std::chrono::steady_clock::time_point started_at;
  std::optional<std::chrono::steady_clock::time_point> first_token_at;

  uint32_t n_tokens() const { return static_cast<uint32_t>(tokens.size()); }
  uint32_t n_pending() const { return n_tokens() - n_computed; }
  uint32_t n_generated() const { return n_tokens() - n_prompt; }  // also the counter of its random numbers
  uint32_t n_known() const { return n_generated() - n_unknown; }  // of them
  bool awaits_end() const { return n_unknown > 0 && n_generated() == request.max_tokens; }

  // The next token comes from row `row` of a step that has been started.
  void expect_token(uint32_t row) {
    tokens.push_back(token_of_row_in_flight(row));
    ++n_unknown;
  }
  void tell_token(int32_t token) { tokens[tokens.size() - n_unknown--] = token; }
  void forget_unknown() {
    tokens.resize(tokens.size() - std::exchange(n_unknown, 0));
    n_computed = std::min(n_computed, n_tokens());
  }
};

}  // namespace llorch
