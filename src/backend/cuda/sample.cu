// Fault, hash and token of each row of logits: one kernel looks at all logits (sample_look.cu), this one draws. A row
// has a block that goes through the chain of its hash, and one or several that add up its weights.
//
// Tokens are drawn by the rules of sampling/sample_token.h. Weights are integers, so their sums are the same in any
// order; the prefixes of the order that top_k and top_p keep are found by narrowing a range of keys, with a histogram
// in shared memory, by one block; the token by narrowing a range of ids. Each warp has a contiguous part of a range.
#include <algorithm>

#include "backend/cuda/arrivals.h"
#include "backend/cuda/launch.h"
#include "backend/cuda/logits_hash.h"
#include "backend/cuda/sample.h"
#include "backend/cuda/sample_look.h"
#include "backend/cuda/sample_weight.h"

namespace llorch::cuda {
namespace {

namespace d = sampling_detail;

constexpr uint32_t kThreads = 1024, kWarps = kThreads / kWarp;
static_assert(kWarps == uint32_t{kWarp});  // a warp's lanes are the sums of all warps
static_assert(kDrawSums == kWarps * kMaxDrawParts && kMaxDrawParts == uint32_t{kWarp});

constexpr uint32_t kFours = 4 * kWarp;  // ids that a warp has at once

constexpr uint32_t kBins = 2 * kThreads, kBinBits = 11;

// Of a range of keys: what lies in each of its equal parts, the earliest in the order first. A sum is two words,
// because shared memory adds words.
struct Histogram {
  unsigned counts[kBins], low[kBins], high[kBins];
};

struct Shared {
  Histogram bins;
  uint64_t of_parts[kDrawSums];
  uint64_t sums[2][kWarps];  // one is read while the other is written
  uint64_t found[2], random;
  unsigned found_bin, found_count, is_last;
};

// A row, and which of its ids may be drawn.
struct Row {
  const float* logits;
  uint32_t vocab;
  float max;
  Weigher weigher;
  uint64_t end = 0;    // the last key that is kept
  uint64_t least = 1;  // the smallest weight that is
};

// A thread's first four logits of a warp's range. It begins at a multiple of 4, and ends at one, or with the
// vocabulary: what is behind is -infinity.
__device__ float4 first_of(const float* logits, uint32_t begin, uint32_t end) {
  return load_4(logits, begin + 4 * static_cast<uint32_t>(lane_id()), end, -INFINITY);
}

// f(first id, four logits) for the ids of a range that are this thread's; next: its first_of(). While f works, the next
// load is under way.
template <typename F>
__device__ void for_each_id(const Row& row, uint32_t begin, uint32_t end, float4 next, F f) {
#pragma unroll 1
  for (uint32_t first = begin + 4 * static_cast<uint32_t>(lane_id()); first < end; first += kFours) {
    const float4 x = next;
    if (first + kFours < end) next = load_4(row.logits, first + kFours, end, -INFINITY);
    f(first, x);
  }
}

// Ids of each warp's part of n, of n_warps.
__device__ uint32_t part_of(uint32_t n, uint32_t n_warps = kWarps) { return ((n + n_warps - 1) / n_warps + 3) / 4 * 4; }

__device__ uint32_t end_of(uint32_t begin, uint32_t n, uint32_t end) { return begin + n < end ? begin + n : end; }

template <typename F>
__device__ void for_each_of_block(const Row& row, F f) {
  const uint32_t part = part_of(row.vocab), begin = static_cast<uint32_t>(warp_id()) * part;
  const uint32_t end = end_of(begin, part, row.vocab);
  for_each_id(row, begin, end, first_of(row.logits, begin, end), f);
}

// Of four ids: the weights of those that may be drawn, else 0. One copy of it: instructions are cold at each launch.
struct Weights {
  uint64_t of[4];
};
__device__ __noinline__ Weights weights(float4 x, uint32_t first, float max, Weigher weigher, uint64_t end,
                                        uint64_t least) {
  const float logits[4] = {x.x, x.y, x.z, x.w};
  Weights w;
#pragma unroll
  for (uint32_t i = 0; i < 4; ++i) {
    w.of[i] = weigher(logits[i] - max);
    if (w.of[i] < least || d::order_key(logits[i], first + i) < end) w.of[i] = 0;
  }
  return w;
}
__device__ Weights weights(const Row& row, const float4& x, uint32_t first) {
  return weights(x, first, row.max, row.weigher, row.end, row.least);
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

// Where a target falls among the lanes' values, of which up_to are the running sums: the first lane whose running sum
// exceeds it.
struct Place {
  uint32_t lane;
  uint64_t rest;  // of the target, inside that lane
};
__device__ Place place_of(uint64_t target, uint64_t value, uint64_t up_to) {
  const unsigned lane = kWarp - integer_max(up_to > target ? unsigned(kWarp - lane_id()) : 0u);
  return {lane, target - shuffle(up_to - value, static_cast<int>(lane))};
}

__device__ LogitsFault fault_of(const Look& look, uint32_t vocab) {
  constexpr unsigned kInfinityBits = 0x7f800000u;
  if (look.largest > kInfinityBits) return LogitsFault::kNan;
  if (look.largest == kInfinityBits) return LogitsFault::kInfinite;
  const bool all_equal = look.different == 0 || look.largest == 0;  // +0 equals -0
  return all_equal && vocab > 1 ? LogitsFault::kAllEqual : LogitsFault::kNone;
}

// The logit of a key, +0 for -0.
__device__ float logit_of(uint64_t key) {
  const auto ascending = static_cast<uint32_t>(key >> 32);
  return __uint_as_float((ascending & 0x80000000u) != 0 ? ascending ^ 0x80000000u : ~ascending);
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
    const int bits = 64 - __clzll(static_cast<long long>(high - low));  // of the range
    const int shift = bits > static_cast<int>(kBinBits) ? bits - static_cast<int>(kBinBits) : 0;
    for (uint32_t i = threadIdx.x; i < kBins; i += kThreads) bins.counts[i] = bins.low[i] = bins.high[i] = 0;
    __syncthreads();
    for_each_of_block(row, [&](uint32_t first, const float4& x) {
      const auto has = [&](uint32_t id, uint64_t key) { return id < row.vocab && key >= low && key <= high; };
      bool has_any = false;
      for_each_of(x, first, [&](uint32_t id, float logit) { has_any |= has(id, d::order_key(logit, id)); });
      if (!has_any) return;  // most, after the first time
      Weights w = {{1, 1, 1, 1}};
      if (is_weighted) w = weights(row, x, first);
      for_each_of(x, first, [&](uint32_t id, float logit) {
        const uint64_t key = d::order_key(logit, id), mine = w.of[id - first];
        if (!has(id, key) || mine == 0) return;
        const auto bin = static_cast<uint32_t>((high - key) >> shift);
        const auto w_low = static_cast<unsigned>(mine);
        atomicAdd(&bins.counts[bin], 1u);
        const unsigned before = atomicAdd(&bins.low[bin], w_low);
        const unsigned carry = before + w_low < before ? 1u : 0u;
        if (is_weighted && (mine >> 32) + carry != 0)
          atomicAdd(&bins.high[bin], static_cast<unsigned>(mine >> 32) + carry);
      });
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

// The sum of the weights of a warp's range.
__device__ uint64_t weigh(const Row& row, uint32_t begin, uint32_t end, const float4& next) {
  uint64_t sum = 0;
  for_each_id(row, begin, end, next, [&](uint32_t first, const float4& x) {
    const Weights w = weights(row, x, first);
    sum += w.of[0] + w.of[1] + w.of[2] + w.of[3];
  });
  return sum;
}
__device__ uint64_t weigh(const Row& row, uint32_t begin, uint32_t end) {
  return weigh(row, begin, end, first_of(row.logits, begin, end));
}

// The id in whose weight the target falls when the weights of [begin, end) are added up; for the first warp alone.
// Other warps need not call it for up to kFours ids.
__device__ int32_t find_id(const Row& row, uint32_t begin, uint32_t end, uint64_t target, Shared& shared) {
  for (int next = 1; end - begin > kFours; next ^= 1) {
    const uint32_t part = part_of(end - begin), mine = begin + static_cast<uint32_t>(warp_id()) * part;
    const uint64_t of_warps = publish(weigh(row, mine, end_of(mine, part, end)), shared.sums[next]);
    const Place place = place_of(target, of_warps, running_sum(of_warps));
    target = place.rest;
    begin += place.lane * part;
    end = end_of(begin, part, end);
  }
  if (warp_id() != 0) return kNoToken;
  const uint32_t first = begin + 4 * static_cast<uint32_t>(lane_id());
  Weights up_to = weights(row, first_of(row.logits, begin, end), first);
  for (int i = 1; i < 4; ++i) up_to.of[i] += up_to.of[i - 1];
  const uint64_t sum = up_to.of[3];
  const Place place = place_of(target, sum, running_sum(sum));
  uint32_t id = first;
  for (const uint64_t x : up_to.of) id += x <= place.rest ? 1 : 0;
  return static_cast<int32_t>(__shfl_sync(kAllLanes, id, static_cast<int>(place.lane)));
}

__device__ bool keeps_top_k(const SamplingParams& params, uint32_t vocab) {
  return params.top_k != 0 && params.top_k < vocab;
}

// Steps 3, 5 and 6: what is kept. best: the first key of the order.
__device__ void filter(Row& row, const SamplingParams& params, uint64_t best, Shared& shared) {
  if (keeps_top_k(params, row.vocab)) row.end = prefix_end(row, false, params.top_k, best, shared);
  if (params.top_p < 1.0f) {
    const uint32_t part = part_of(row.vocab), begin = static_cast<uint32_t>(warp_id()) * part;
    const uint64_t sum = warp_sum(publish(weigh(row, begin, end_of(begin, part, row.vocab)), shared.sums[1]));
    const uint64_t target = d::share(params.top_p, sum);
    const uint64_t end = prefix_end(row, true, target > 0 ? target : 1, best, shared);
    row.end = end > row.end ? end : row.end;
  }
  if (params.min_p > 0.0f) {
    const uint64_t least = d::least_weight(params.min_p);
    row.least = least > 1 ? least : 1;
  }
}

// Of the blocks that add up a row's weights, this one.
struct Part {
  uint32_t n, index;

  // The range of each of its warps, or of another part's.
  __device__ uint32_t ids(uint32_t vocab) const { return part_of(vocab, kWarps * n); }
  __device__ uint32_t begin(uint32_t vocab) const {
    return (index * kWarps + static_cast<uint32_t>(warp_id())) * ids(vocab);
  }
};

// Steps 4 and 7. next: first_of() the warp's range. The last block to come here finds the token; its first warp gets
// it, all others kNoToken.
__device__ int32_t draw(const Row& row, const Part& part, const float4& next, uint64_t* of_all, unsigned& arrivals,
                        Shared& shared) {
  const uint32_t ids = part.ids(row.vocab);
  uint32_t begin = part.begin(row.vocab);
  uint64_t of_warps = publish(weigh(row, begin, end_of(begin, ids, row.vocab), next), shared.sums[0]);
  uint64_t up_to, target;
  begin = 0;
  if (part.n == 1) {
    up_to = running_sum(of_warps);
    target = d::multiply_high(shared.random, shuffle(up_to, kWarp - 1));
  } else {
    if (warp_id() == 0) __stcg(of_all + part.index * kWarps + static_cast<uint32_t>(lane_id()), of_warps);
    if (!comes_last(arrivals, part.n, shared.is_last)) return kNoToken;
    const uint64_t mine = threadIdx.x < kWarps * part.n ? __ldcg(of_all + threadIdx.x) : 0;
    shared.of_parts[threadIdx.x] = mine;
    const uint64_t of_parts = publish(mine, shared.sums[0]);
    if (ids <= kFours && warp_id() != 0) return kNoToken;
    up_to = running_sum(of_parts);
    target = d::multiply_high(shared.random, shuffle(up_to, kWarp - 1));
    const Place place = place_of(target, of_parts, up_to);
    target = place.rest;
    begin = place.lane * kWarps * ids;
    of_warps = shared.of_parts[place.lane * kWarps + static_cast<uint32_t>(lane_id())];
    up_to = running_sum(of_warps);
  }
  const Place place = place_of(target, of_warps, up_to);
  begin += place.lane * ids;
  return find_id(row, begin, end_of(begin, ids, row.vocab), place.rest, shared);
}

__device__ void draw_row(const SampleArgs& a, uint32_t row_index, uint32_t host_row) {
  const DeviceRowSampling sampling = a.rows[host_row];  // which was there before the step's first kernel
  Shared& shared = *reinterpret_cast<Shared*>(shared_memory());
  const SamplingParams params = sampling.params;
  const bool joins = !keeps_top_k(params, a.vocab) && !(params.top_p < 1.0f) && params.temperature != 0.0f;
  const Part part = {joins ? gridDim.x - 1 : 1, blockIdx.x};
  if (threadIdx.x == 0) shared.random = random_bits(params.seed, sampling.index);
  const float* logits = d::penalizes(params) ? sampling.penalized : a.logits + size_t{row_index} * a.vocab;
  const Weigher weigher(params.temperature);
  const uint32_t begin = part.begin(a.vocab), end = end_of(begin, part.ids(a.vocab), a.vocab);
  wait_for_inputs();
  if (part.index >= part.n) return;
  const float4 next = first_of(logits, begin, end);  // under way beside the looks
  const Look look = look_of_row(a, row_index);
  const LogitsFault fault = fault_of(look, a.vocab);
  if (fault != LogitsFault::kNone && part.index > 0) return;
  int32_t token = kNoToken;
  if (fault == LogitsFault::kNone) {
    token = static_cast<int32_t>(~static_cast<uint32_t>(look.best));
    if (params.temperature != 0.0f) {
      Row row{logits, a.vocab, logit_of(look.best), weigher};
      filter(row, params, look.best, shared);
      token = draw(row, part, next, a.scratch.weights + size_t{row_index} * kDrawSums, a.scratch.arrivals[row_index],
                   shared);
      if (token == kNoToken) return;
    }
  }
  if (threadIdx.x != 0) return;
  a.sampled[host_row].fault = fault;
  a.sampled[host_row].token = a.tokens[row_index] = token;
}

__device__ void hash_row(const SampleArgs& a, uint32_t row, uint32_t host_row) {
  const xxh3::Chain chain;
  wait_for_inputs();
  const uint64_t* sums = a.scratch.hash_sums + size_t{row} * n_hash_blocks(a.vocab) * kHashLanes;
  const uint64_t hash =
      chain.hash(a.logits + size_t{row} * a.vocab, a.vocab, sums, *reinterpret_cast<xxh3::Shared*>(shared_memory()));
  if (threadIdx.x == 0) a.sampled[host_row].hash = hash;
}

// grid [parts of a row, and one for the hash; rows]
__global__ void __launch_bounds__(kThreads) draw_kernel(SampleArgs a) {
  const uint32_t row = blockIdx.y, host_row = *a.half * a.half_rows + row;
  if (blockIdx.x + 1 == gridDim.x)
    hash_row(a, row, host_row);
  else
    draw_row(a, row, host_row);
}

// Blocks that add up a row's weights: as many as the device has room for, each with a load for each of its threads.
uint32_t n_draw_parts(uint32_t vocab, int32_t n, int n_multiprocessors) {
  const int32_t room = n_multiprocessors / n - 1;  // one has the hash
  const int32_t useful = std::min(divide_up(vocab, 4 * kThreads), static_cast<int32_t>(kMaxDrawParts));
  return static_cast<uint32_t>(std::max(1, std::min(room, useful)));
}

}  // namespace

void sample(const KernelStream& stream, const SampleArgs& args, int32_t n) {
  constexpr size_t kSharedBytes = std::max(sizeof(Shared), sizeof(xxh3::Shared));
  static_assert(kSharedBytes <= kSharedBytesUnasked);
  const auto rows = static_cast<unsigned>(n);
  look(stream, args, n);
  launch(stream, {dim3(n_draw_parts(args.vocab, n, stream.n_multiprocessors) + 1, rows), kThreads, kSharedBytes},
         draw_kernel, args);
}

}  // namespace llorch::cuda
