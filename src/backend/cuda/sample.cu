// Fault, hash and token of each row of logits: two blocks a row, one for the hash and one for the rest, side by side.
//
// Tokens are drawn by the rules of sampling/sample_token.h. Weights are integers, so their sums are the same in any
// order; the prefixes of the order that top_k and top_p keep are found by narrowing a range of keys, with a histogram
// in shared memory; the token by narrowing a range of ids. Each warp has a contiguous part of a range.
#include <algorithm>

#include "backend/cuda/launch.h"
#include "backend/cuda/logits_hash.h"
#include "backend/cuda/sample.h"

namespace llorch::cuda {
namespace {

namespace d = sampling_detail;

constexpr uint32_t kThreads = 1024, kWarps = kThreads / kWarp;
static_assert(kWarps == uint32_t{kWarp});  // a warp's lanes are the sums of all warps

constexpr uint32_t kBins = 2 * kThreads, kBinBits = 11;

// Of a range of keys: what lies in each of its equal parts, the earliest in the order first. A sum is two words,
// because shared memory adds words.
struct Histogram {
  unsigned counts[kBins], low[kBins], high[kBins];
};

struct Shared {
  Histogram bins;
  uint64_t sums[2][kWarps];  // one is read while the other is written
  unsigned words[4][kWarps];
  uint64_t found[2];
  unsigned found_bin, found_count;
};

// A row, and which of its ids may be drawn.
struct Row {
  const float* logits;
  uint32_t vocab;
  bool is_aligned;  // to 16 bytes
  float max, temperature;
  uint64_t end = 0;    // the last key that is kept
  uint64_t least = 1;  // the smallest weight that is
};

// f(id, logit) for the ids of [begin, end) that are this thread's; begin is a multiple of 4. Every thread of a warp has
// the same range.
template <typename F>
__device__ void for_each_id(const Row& row, uint32_t begin, uint32_t end, F f) {
  const uint32_t lane = static_cast<uint32_t>(lane_id());
#pragma unroll 4
  for (uint32_t first = begin + 4 * lane; first < end; first += 4 * kWarp) {
    if (row.is_aligned && first + 4 <= end) {
      const float4 x = *reinterpret_cast<const float4*>(row.logits + first);
      f(first, x.x);
      f(first + 1, x.y);
      f(first + 2, x.z);
      f(first + 3, x.w);
    } else {
      for (uint32_t id = first; id < end && id < first + 4; ++id) f(id, row.logits[id]);
    }
  }
}

// Ids of each warp's part of n.
__device__ uint32_t part_of(uint32_t n) { return ((n + kWarps - 1) / kWarps + 3) / 4 * 4; }

template <typename F>
__device__ void for_each_of_block(const Row& row, F f) {
  const uint32_t part = part_of(row.vocab), begin = static_cast<uint32_t>(warp_id()) * part;
  for_each_id(row, begin, begin + part < row.vocab ? begin + part : row.vocab, f);
}

// The weight of an id that may be drawn, else 0.
__device__ uint64_t weight(const Row& row, uint32_t id, float logit) {
  if (d::order_key(logit, id) < row.end) return 0;
  const uint64_t w = d::weight_of(logit, row.max, row.temperature);
  return w >= row.least ? w : 0;
}

__device__ uint64_t warp_sum(uint64_t value) {
  for (int by = kWarp / 2; by > 0; by /= 2) value += xxh3::shuffle_xor(value, by);
  return value;
}

__device__ uint64_t shuffle(uint64_t value, int from) {
  const uint32_t low = __shfl_sync(kAllLanes, static_cast<uint32_t>(value), from);
  return uint64_t{__shfl_sync(kAllLanes, static_cast<uint32_t>(value >> 32), from)} << 32 | low;
}

// Sum over this lane and those before it.
__device__ uint64_t running_sum(uint64_t value) {
  for (int by = 1; by < kWarp; by *= 2) {
    const uint64_t before = shuffle(value, (lane_id() - by) & (kWarp - 1));
    if (lane_id() >= by) value += before;
  }
  return value;
}

// Where a target falls among the lanes' sums: the first lane whose running sum exceeds it.
struct Place {
  int lane;
  uint64_t rest;  // of the target, inside that lane
};
__device__ Place place_of(uint64_t target, uint64_t value) {
  const uint64_t sum = running_sum(value);
  const int lane = kWarp - static_cast<int>(integer_max(sum > target ? unsigned(kWarp - lane_id()) : 0u));
  return {lane, target - shuffle(sum - value, lane)};
}

// What the first pass sees.
struct Look {
  unsigned largest = 0;    // of the magnitudes' bits
  unsigned different = 0;  // from the first logit's bits
  uint64_t best = 0;       // the first key of the order
};

__device__ Look reduce(Look mine, Shared& shared) {
  const auto reduced = [](unsigned value) { return integer_max(value); };
  const auto key_of = [&](uint64_t key) {
    const unsigned high = reduced(static_cast<unsigned>(key >> 32));
    const unsigned low = reduced(static_cast<unsigned>(key >> 32) == high ? static_cast<unsigned>(key) : 0u);
    return uint64_t{high} << 32 | low;
  };
  const auto of_warp = [&](const Look& x) { return Look{reduced(x.largest), reduced(x.different), key_of(x.best)}; };
  const Look warp = of_warp(mine);
  const int w = warp_id(), lane = lane_id();
  if (lane == 0) {
    shared.words[0][w] = warp.largest;
    shared.words[1][w] = warp.different;
    shared.words[2][w] = static_cast<unsigned>(warp.best >> 32);
    shared.words[3][w] = static_cast<unsigned>(warp.best);
  }
  __syncthreads();
  return of_warp(Look{shared.words[0][lane], shared.words[1][lane],
                      uint64_t{shared.words[2][lane]} << 32 | shared.words[3][lane]});
}

__device__ LogitsFault fault_of(const Look& look, uint32_t vocab) {
  constexpr unsigned kInfinityBits = 0x7f800000u;
  if (look.largest > kInfinityBits) return LogitsFault::kNan;
  if (look.largest == kInfinityBits) return LogitsFault::kInfinite;
  const bool all_equal = look.different == 0 || look.largest == 0;  // +0 equals -0
  return all_equal && vocab > 1 ? LogitsFault::kAllEqual : LogitsFault::kNone;
}

// The row with the repetition penalty: a copy, so that an id that occurs twice is read as it was.
__device__ void penalize(const float* logits, uint32_t vocab, const DeviceRowSampling& sampling) {
  for (uint32_t id = threadIdx.x; id < vocab; id += kThreads) sampling.penalized[id] = logits[id];
  __syncthreads();
  for (uint32_t i = threadIdx.x; i < sampling.n_history; i += kThreads) {
    const int32_t id = sampling.history[i];
    sampling.penalized[id] = d::penalized(logits[id], sampling.params.repetition_penalty);
  }
  __syncthreads();
}

// The sum of all warps' sums, and mine written for the others; each call with the other half of shared.sums.
__device__ uint64_t publish(uint64_t mine, uint64_t (&sums)[kWarps]) {
  mine = warp_sum(mine);
  if (lane_id() == 0) sums[warp_id()] = mine;
  __syncthreads();
  return sums[lane_id()];
}

// Which part of the histogram the target falls into: found[0] is the rest of it there, found[1] the sum there.
__device__ void find_bin(uint64_t target, Shared& shared) {
  Histogram& bins = shared.bins;
  const uint32_t first = 2 * threadIdx.x;
  const auto sum_of = [&](uint32_t bin) { return uint64_t{bins.high[bin]} << 32 | bins.low[bin]; };
  const uint64_t a = sum_of(first), b = sum_of(first + 1);
  const uint64_t up_to = running_sum(a + b);
  if (lane_id() == kWarp - 1) shared.sums[0][warp_id()] = up_to;
  __syncthreads();
  const uint64_t of_warps = running_sum(shared.sums[0][lane_id()]);
  const uint64_t of_earlier = shuffle(of_warps, (warp_id() + kWarp - 1) % kWarp);
  const uint64_t before = (warp_id() > 0 ? of_earlier : 0) + up_to - a - b;
  const auto take = [&](uint32_t bin, uint64_t sum_before, uint64_t sum) {
    if (target <= sum_before || target > sum_before + sum) return;  // one bin of all takes it
    shared.found[0] = target - sum_before;
    shared.found[1] = sum;
    shared.found_bin = bin;
    shared.found_count = bins.counts[bin];
  };
  take(first, before, a);
  take(first + 1, before + a, b);
  __syncthreads();
}

// A key that separates the shortest prefix of the order whose weights, or ids, sum up to `target` from what follows;
// 1 <= target <= the sum of all. With weights, only ids that row keeps so far. best: the first key.
__device__ uint64_t prefix_end(const Row& row, bool is_weighted, uint64_t target, uint64_t best, Shared& shared) {
  Histogram& bins = shared.bins;
  uint64_t low = 0, high = best;
  while (true) {
    int bits = 0;  // of the range
    while (bits < 64 && (high - low) >> bits != 0) ++bits;
    const int shift = bits > static_cast<int>(kBinBits) ? bits - static_cast<int>(kBinBits) : 0;
    for (uint32_t i = threadIdx.x; i < kBins; i += kThreads) bins.counts[i] = bins.low[i] = bins.high[i] = 0;
    __syncthreads();
    for_each_of_block(row, [&](uint32_t id, float logit) {
      const uint64_t key = d::order_key(logit, id);
      if (key < low || key > high) return;
      const uint64_t w = is_weighted ? weight(row, id, logit) : 1;
      if (w == 0) return;
      const auto bin = static_cast<uint32_t>((high - key) >> shift);
      const auto w_low = static_cast<unsigned>(w);
      atomicAdd(&bins.counts[bin], 1u);
      const unsigned before = atomicAdd(&bins.low[bin], w_low);
      const unsigned carry = before + w_low < before ? 1u : 0u;
      if (is_weighted && (w >> 32) + carry != 0) atomicAdd(&bins.high[bin], static_cast<unsigned>(w >> 32) + carry);
    });
    __syncthreads();
    find_bin(target, shared);
    target = shared.found[0];
    high -= uint64_t{shared.found_bin} << shift;
    const uint64_t width = uint64_t{1} << shift;
    if (high - low >= width) low = high - width + 1;
    if (shift == 0 || target == shared.found[1] || shared.found_count == 1) return low;
    __syncthreads();  // before found is written again
  }
}

// The id in whose weight the target falls when the weights of [0, vocab) are added up; `of_warps` are the sums of the
// warps' parts.
__device__ int32_t find_id(const Row& row, uint64_t target, uint64_t of_warps, int next, Shared& shared) {
  uint32_t begin = 0, end = row.vocab;
  while (true) {
    const Place place = place_of(target, of_warps);
    const uint32_t part = part_of(end - begin);
    target = place.rest;
    begin += static_cast<uint32_t>(place.lane) * part;
    if (begin + part < end) end = begin + part;
    if (part <= 4) break;
    const uint32_t inner = part_of(end - begin), mine = begin + static_cast<uint32_t>(warp_id()) * inner;
    uint64_t sum = 0;
    for_each_id(row, mine, mine + inner < end ? mine + inner : end,
                [&](uint32_t id, float logit) { sum += weight(row, id, logit); });
    of_warps = publish(sum, shared.sums[next]);
    next ^= 1;
  }
  for (uint32_t id = begin; id < end; ++id) {
    const uint64_t w = weight(row, id, row.logits[id]);
    if (target < w) return static_cast<int32_t>(id);
    target -= w;
  }
  return kNoToken;
}

// Steps 3 to 7. best: the first key of the order.
__device__ int32_t draw(Row& row, const DeviceRowSampling& sampling, uint64_t best, Shared& shared) {
  const SamplingParams& params = sampling.params;
  if (params.top_k != 0 && params.top_k < row.vocab) row.end = prefix_end(row, false, params.top_k, best, shared);
  uint64_t of_warps = 0, sum = 0;
  const auto add_up = [&](int next) {
    uint64_t mine = 0;
    for_each_of_block(row, [&](uint32_t id, float logit) { mine += weight(row, id, logit); });
    of_warps = publish(mine, shared.sums[next]);
    sum = warp_sum(of_warps);
  };
  if (params.top_p < 1.0f) {
    add_up(1);
    const uint64_t target = d::share(params.top_p, sum);
    const uint64_t end = prefix_end(row, true, target > 0 ? target : 1, best, shared);
    row.end = end > row.end ? end : row.end;
  }
  if (params.min_p > 0.0f) {
    const uint64_t least = d::least_weight(params.min_p);
    row.least = least > 1 ? least : 1;
  }
  add_up(0);
  return find_id(row, d::multiply_high(random_bits(params.seed, sampling.index), sum), of_warps, 1, shared);
}

__device__ void draw_row(const float* logits, uint32_t vocab, const DeviceRowSampling& sampling, SampledRow& sampled) {
  Shared& shared = *reinterpret_cast<Shared*>(shared_memory());
  const bool penalizes = d::penalizes(sampling.params);
  if (penalizes) penalize(logits, vocab, sampling);
  Row row{penalizes ? sampling.penalized : logits, vocab, false, 0.0f, sampling.params.temperature};
  row.is_aligned = reinterpret_cast<uintptr_t>(row.logits) % 16 == 0;
  const unsigned first = __float_as_uint(logits[0]);
  Look mine;
  for_each_of_block(row, [&](uint32_t id, float logit) {
    const unsigned bits = __float_as_uint(penalizes ? logits[id] : logit);
    const unsigned magnitude = bits & 0x7fffffffu;
    mine.largest = magnitude > mine.largest ? magnitude : mine.largest;
    mine.different |= bits ^ first;
    const uint64_t key = d::order_key(logit, id);
    mine.best = key > mine.best ? key : mine.best;
  });
  const Look look = reduce(mine, shared);
  const LogitsFault fault = fault_of(look, vocab);
  int32_t token = kNoToken;
  if (fault == LogitsFault::kNone) {
    token = static_cast<int32_t>(~static_cast<uint32_t>(look.best));
    row.max = row.logits[token];
    if (row.temperature != 0.0f) token = draw(row, sampling, look.best, shared);
  }
  if (threadIdx.x != 0) return;
  sampled.fault = fault;
  sampled.token = token;
}

__global__ void __launch_bounds__(kThreads) sample_kernel(SampleArgs a) {
  wait_for_inputs();
  const uint32_t row = blockIdx.x;
  const float* logits = a.logits + size_t{row} * a.vocab;
  if (blockIdx.y == 1) return draw_row(logits, a.vocab, a.rows[row], a.sampled[row]);
  const uint64_t hash = xxh3::of_row(logits, a.vocab, *reinterpret_cast<xxh3::Shared*>(shared_memory()));
  if (threadIdx.x == 0) a.sampled[row].hash = hash;
}

}  // namespace

void sample(const KernelStream& stream, const SampleArgs& args, int32_t n) {
  constexpr size_t kSharedBytes = std::max(sizeof(Shared), sizeof(xxh3::Shared));
  static_assert(kSharedBytes <= size_t{48} << 10);
  launch(stream, {dim3(static_cast<unsigned>(n), 2), kThreads, kSharedBytes}, sample_kernel, args);
}

}  // namespace llorch::cuda
