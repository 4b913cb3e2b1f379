// From logits to a token id: one implementation, with one result, for host and device. docs/numerics.md states it.
//
//  1. Repetition penalty r (0, 1: off): each id of the history, once: l = l > 0 ? l / r : l * r, held finite.
//  2. m = the largest logit. Any NaN, or m not finite: no token. Temperature 0: the lowest id that has m.
//  3. Order: logit descending, then id ascending; +0 equals -0. top_k keeps the first k (0: all).
//  4. Weights: w = trunc(exp((l - m) / T) * 2^40), all operations IEEE float32, exp from base/exp.h. They are integers,
//     so that every sum below is exact in any order; ids of weight 0 drop out.
//  5. top_p (1: off) keeps the shortest prefix of the order whose sum is at least max(1, share(top_p, sum of all)),
//     with share(f, s) = ceil(floor(f * 2^32) * s / 2^32).
//  6. min_p keeps w >= share(min_p, w of m).
//  7. x = 64 random bits of (seed, index of the generated token); r = floor(x * sum of what is kept / 2^64); the token
//  is
//     the first in ascending id whose running sum exceeds r.
//
// Nothing is sorted: the order is that of a 64-bit key, and a prefix of it is found by descending through its digits.
#pragma once

#include <bit>
#include <cfloat>
#include <cstdint>

#include "base/exp.h"
#include "base/host_device.h"
#include "sampling/params.h"
#include "sampling/philox.h"
#include "sampling/row.h"

namespace llorch {

inline constexpr uint32_t kMaxSampledVocab = 1u << 23;  // keeps sums of weights below 2^63

// Memory that the caller lends to sample_token; contents do not matter.
struct SamplingScratch {
  float* logits;      // [vocab]
  uint32_t* seen;     // [(vocab + 31) / 32]
  uint32_t* ids;      // [vocab]
  uint64_t* weights;  // [vocab]
  uint32_t* work;     // [vocab]
};

namespace sampling_detail {

// Larger is earlier in the order; unique for each id.
LLORCH_HD inline uint64_t order_key(float logit, uint32_t id) {
  const uint32_t bits = std::bit_cast<uint32_t>(logit + 0.0f);  // -0 becomes +0
  const uint32_t ascending = (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
  return uint64_t{ascending} << 32 | static_cast<uint32_t>(~id);
}

// ceil(floor(fraction * 2^32) * sum / 2^32), exactly; fraction 0..1, sum < 2^63.
LLORCH_HD inline uint64_t share(float fraction, uint64_t sum) {
  const uint64_t f = static_cast<uint64_t>(fraction * 4294967296.0f);
  return f * (sum >> 32) + ((f * (sum & 0xffffffffu) + 0xffffffffu) >> 32);
}

// floor(a * b / 2^64)
LLORCH_HD inline uint64_t multiply_high(uint64_t a, uint64_t b) {
  const uint64_t a0 = a & 0xffffffffu, a1 = a >> 32, b0 = b & 0xffffffffu, b1 = b >> 32;
  const uint64_t middle = a1 * b0 + (a0 * b0 >> 32);
  return a1 * b1 + (middle >> 32) + ((a0 * b1 + (middle & 0xffffffffu)) >> 32);
}

// Ids and their weights; null ids: 0, 1, 2 ...; null weights: 1 each.
struct Candidates {
  const uint32_t* ids;
  const uint64_t* weights;
  uint32_t count;
};

// The key of the last id in the shortest prefix of the order whose weights sum up to target or more; 1 <= target <= sum
// of all. One pass over the candidates for the first 11 bits of the key, then over the few that share them.
LLORCH_HD inline uint64_t prefix_end(const float* logits, const Candidates& all, uint64_t target, uint32_t* work) {
  constexpr uint32_t kDigitBits = 11;
  uint64_t sums[1u << kDigitBits];
  uint64_t end = 0;
  uint32_t count = all.count;
  bool first = true;
  for (uint32_t high = 64; high > 0;) {
    const uint32_t shift = high > kDigitBits ? high - kDigitBits : 0;
    const uint64_t mask = (uint64_t{1} << (high - shift)) - 1;
    for (uint64_t& sum : sums) sum = 0;
    for (uint32_t i = 0; i < count; ++i) {
      const uint32_t j = first ? i : work[i];
      const uint32_t id = all.ids != nullptr ? all.ids[j] : j;
      sums[order_key(logits[id], id) >> shift & mask] += all.weights != nullptr ? all.weights[j] : 1;
    }
    uint64_t digit = mask;
    while (sums[digit] < target) target -= sums[digit--];
    end |= digit << shift;
    uint32_t left = 0;
    for (uint32_t i = 0; i < count; ++i) {
      const uint32_t j = first ? i : work[i];
      const uint32_t id = all.ids != nullptr ? all.ids[j] : j;
      if ((order_key(logits[id], id) >> shift & mask) == digit) work[left++] = j;
    }
    count = left;
    first = false;
    high = shift;
  }
  return end;
}

// Step 1 of one logit; one that is not finite stays as it is.
LLORCH_HD inline float penalized(float l, float penalty) {
  if (!(l >= -FLT_MAX && l <= FLT_MAX)) return l;
  const float p = l > 0.0f ? l / penalty : l * penalty;
  return p > FLT_MAX ? FLT_MAX : p < -FLT_MAX ? -FLT_MAX : p;
}

LLORCH_HD inline bool penalizes(const SamplingParams& params) {
  return params.repetition_penalty != 0.0f && params.repetition_penalty != 1.0f;
}

// Step 1, into scratch.logits.
LLORCH_HD inline void penalize(const float* logits, uint32_t vocab, float penalty, const int32_t* history,
                               uint32_t n_history, const SamplingScratch& scratch) {
  for (uint32_t i = 0; i < vocab; ++i) scratch.logits[i] = logits[i];
  for (uint32_t i = 0; i < (vocab + 31) / 32; ++i) scratch.seen[i] = 0;
  for (uint32_t i = 0; i < n_history; ++i) {
    const uint32_t id = static_cast<uint32_t>(history[i]);
    const uint32_t bit = 1u << (id & 31);
    if ((scratch.seen[id >> 5] & bit) != 0) continue;
    scratch.seen[id >> 5] |= bit;
    scratch.logits[id] = penalized(logits[id], penalty);
  }
}

// Step 2: the lowest id of the largest logit, or kNoToken.
LLORCH_HD inline int32_t greedy(const float* logits, uint32_t vocab) {
  uint32_t best = 0;
  bool nan = false;
  for (uint32_t i = 0; i < vocab; ++i) {
    nan |= logits[i] != logits[i];
    if (logits[i] > logits[best]) best = i;
  }
  const bool finite = logits[best] >= -FLT_MAX && logits[best] <= FLT_MAX;
  return nan || !finite ? kNoToken : static_cast<int32_t>(best);
}

// Step 4.
LLORCH_HD inline uint64_t weight_of(float logit, float max, float temperature) {
  const float x = (logit - max) / temperature;
  if (x < -28.0f) return 0;  // exp(-28) * 2^40 < 1
  return static_cast<uint64_t>(exp_f32(x) * 1099511627776.0f);
}

// Step 6: the least weight that min_p keeps; that of the largest logit is exactly 2^40.
LLORCH_HD inline uint64_t least_weight(float min_p) { return share(min_p, uint64_t{1} << 40); }

// Steps 3 and 4: ids ascending and weights of what top_k keeps, without those of weight 0, into scratch; how many.
LLORCH_HD inline uint32_t weigh(const float* logits, uint32_t vocab, float max, const SamplingParams& params,
                                const SamplingScratch& scratch) {
  const bool all = params.top_k == 0 || params.top_k >= vocab;
  const uint64_t end = all ? 0 : prefix_end(logits, {nullptr, nullptr, vocab}, params.top_k, scratch.work);
  uint32_t count = 0;
  for (uint32_t id = 0; id < vocab; ++id) {
    if (order_key(logits[id], id) < end) continue;
    const uint64_t weight = weight_of(logits[id], max, params.temperature);
    if (weight == 0) continue;
    scratch.ids[count] = id;
    scratch.weights[count++] = weight;
  }
  return count;
}

}  // namespace sampling_detail

// The token after the history (prompt and generated tokens, which the repetition penalty looks at), as the index-th
// generated one; kNoToken if the logits are faulty. logits [vocab], vocab 1..kMaxSampledVocab, ids in history < vocab.
LLORCH_HD inline int32_t sample_token(const float* logits, uint32_t vocab, const SamplingParams& params,
                                      const int32_t* history, uint32_t n_history, uint32_t index,
                                      const SamplingScratch& scratch) {
  namespace d = sampling_detail;
  if (d::penalizes(params)) {
    d::penalize(logits, vocab, params.repetition_penalty, history, n_history, scratch);
    logits = scratch.logits;
  }
  const int32_t best = d::greedy(logits, vocab);
  if (best == kNoToken || params.temperature == 0.0f) return best;

  uint32_t count = d::weigh(logits, vocab, logits[best], params, scratch);
  uint64_t sum = 0;
  for (uint32_t i = 0; i < count; ++i) sum += scratch.weights[i];
  if (params.top_p < 1.0f || params.min_p > 0.0f) {
    uint64_t end = 0;
    if (params.top_p < 1.0f) {
      const uint64_t target = d::share(params.top_p, sum);
      end = d::prefix_end(logits, {scratch.ids, scratch.weights, count}, target > 0 ? target : 1, scratch.work);
    }
    const uint64_t least = d::least_weight(params.min_p);
    uint32_t kept = 0;
    sum = 0;
    for (uint32_t i = 0; i < count; ++i) {
      if (scratch.weights[i] < least || d::order_key(logits[scratch.ids[i]], scratch.ids[i]) < end) continue;
      scratch.ids[kept] = scratch.ids[i];
      scratch.weights[kept] = scratch.weights[i];
      sum += scratch.weights[kept++];
    }
    count = kept;
  }
  uint64_t r = d::multiply_high(random_bits(params.seed, index), sum);
  uint32_t i = 0;
  while (r >= scratch.weights[i]) r -= scratch.weights[i++];
  return static_cast<int32_t>(scratch.ids[i]);
}

}  // namespace llorch
