// The first of sampling's two kernels: each block looks at 2048 logits of a row, adds the stripes of their hash, and
// applies the repetition penalty. The second one begins with what they have seen.
#include "backend/cuda/launch.h"
#include "backend/cuda/logits_hash.h"
#include "backend/cuda/sample_look.h"

namespace llorch::cuda {
namespace {

constexpr uint32_t kLookThreads = kLookWarps * kWarp, kLookIds = kLookWarps * kHashBlock;
static_assert(kHashBlock * sizeof(float) == xxh3::kBlockBytes && kHashLanes == xxh3::kLanes);

// Of ids that come in ascending order, the first that has the largest logit.
struct Best {
  float logit = -INFINITY;
  uint32_t id = ~uint32_t{0};

  __device__ void see(const float4& x, uint32_t first) {
    for_each_of(x, first, [&](uint32_t i, float l) {
      id = l > logit ? i : id;
      logit = l > logit ? l : logit;
    });
  }
};

// The block's part of the row with the repetition penalty: a copy, so that an id that occurs twice is read as it was.
__device__ void penalize(const float* logits, uint32_t vocab, const DeviceRowSampling& sampling) {
  constexpr uint32_t kAtOnce = 4;  // ids of the history that a thread asks for
  const float penalty = sampling.params.repetition_penalty;
  const uint32_t n = sampling.n_history;
  const int32_t* const history = sampling.history;
  float* const copy = sampling.penalized;
  const uint32_t begin = blockIdx.x * kLookIds, end = begin + kLookIds < vocab ? begin + kLookIds : vocab;
  for (uint32_t id = begin + threadIdx.x; id < end; id += kLookThreads) copy[id] = logits[id];
  __syncthreads();
#pragma unroll 1
  for (uint32_t first = threadIdx.x; first < n; first += kAtOnce * kLookThreads) {
    uint32_t ids[kAtOnce];
#pragma unroll
    for (uint32_t i = 0; i < kAtOnce; ++i)
      ids[i] = first + i * kLookThreads < n ? static_cast<uint32_t>(history[first + i * kLookThreads]) : vocab;
#pragma unroll
    for (const uint32_t id : ids)
      if (id >= begin && id < end) copy[id] = sampling_detail::penalized(logits[id], penalty);
  }
  __syncthreads();
}

// A warp has one block of the hash, a thread eight logits of it. grid [n_looks, rows]
__global__ void __launch_bounds__(kLookThreads) look_kernel(SampleArgs a) {
  const uint32_t row = blockIdx.y, warp = static_cast<uint32_t>(warp_id()), lane = static_cast<uint32_t>(lane_id());
  const DeviceRowSampling sampling = a.rows[*a.half * a.half_rows + row];  // there before the step's first kernel
  const bool penalizes = sampling_detail::penalizes(sampling.params);
  const xxh3::BlockSum block_sum;
  wait_for_inputs();
  const float* logits = a.logits + size_t{row} * a.vocab;
  const uint32_t n_blocks = n_hash_blocks(a.vocab), block = blockIdx.x * kLookWarps + warp;
  const uint32_t ids[2] = {block * kHashBlock + 4 * lane, block * kHashBlock + 4 * (kWarp + lane)};
  const float first = logits[0];  // and instead of what is behind the row
  float4 x[2] = {load_4(logits, ids[0], a.vocab, first), load_4(logits, ids[1], a.vocab, first)};
  Look mine;
  for (int i = 0; i < 2; ++i)
    for_each_of(x[i], 0, [&](uint32_t, float logit) {
      const unsigned bits = __float_as_uint(logit), magnitude = bits & 0x7fffffffu;
      mine.largest = magnitude > mine.largest ? magnitude : mine.largest;
      mine.different |= bits ^ __float_as_uint(first);
    });
  const uint64_t sum = block_sum.sum(x, xxh3::stripes_of(block, a.vocab));
  if (block < n_blocks && lane < kHashLanes)
    a.scratch.hash_sums[(size_t{row} * n_blocks + block) * kHashLanes + xxh3::BlockSum::lane_of_sum()] = sum;
  if (penalizes) {
    penalize(logits, a.vocab, sampling);
    for (int i = 0; i < 2; ++i) x[i] = load_4(sampling.penalized, ids[i], a.vocab, -INFINITY);
  }
  Best best;
  for (int i = 0; i < 2; ++i) best.see(x[i], ids[i]);
  mine.best = sampling_detail::order_key(best.logit, best.id);

  Look* const of_warps = reinterpret_cast<Look*>(shared_memory());
  mine = join(mine);
  if (lane == 0) of_warps[warp] = mine;
  __syncthreads();
  if (warp != 0) return;
  const Look look = join(lane < kLookWarps ? of_warps[lane] : Look{});
  if (lane != 0) return;
  a.scratch.looks[size_t{row} * gridDim.x + blockIdx.x] = look;
  if (blockIdx.x == 0) a.scratch.arrivals[row] = 0;
}

}  // namespace

void look(const KernelStream& stream, const SampleArgs& args, int32_t n) {
  launch(stream, {dim3(n_looks(args.vocab), static_cast<unsigned>(n)), kLookThreads, kLookWarps * sizeof(Look)},
         look_kernel, args);
}

}  // namespace llorch::cuda
