// Shares of K: where several blocks have a tile, each leaves its sums in device memory, and the last to come adds all
// of them in ascending order, so that no bit depends on which it is. For linear_tensor.cu.
//
// A thread has the same outputs in each block: sums lie as threads have them, [items][rows / 8][core][256 threads][4],
// and a warp asks for nobody but the same warps of the other blocks. So warps arrive one by one, without a barrier.
#pragma once

#include "backend/cuda/linear_tensor.h"

namespace llorch::cuda {

// Of n blocks: whether this one's warp is the last to come here. What the others have written before is visible.
__device__ inline bool comes_last(unsigned& arrivals, unsigned n) {
  __threadfence();
  __syncwarp();
  unsigned before = 0;
  if (lane_id() == 0) {
    before = atomicAdd(&arrivals, 1u);
    if (before + 1 == n) arrivals = 0;  // for the next launch
  }
  before = integer_max(before);  // the others' 0; a uniform register, so that all that follows stays without divergence
  __threadfence();
  return before + 1 == n;
}

__device__ inline void add(float4& sum, const float4& x) {
  sum.x = __fadd_rn(sum.x, x.x);
  sum.y = __fadd_rn(sum.y, x.y);
  sum.z = __fadd_rn(sum.z, x.z);
  sum.w = __fadd_rn(sum.w, x.w);
}

template <int kRows>
class Joint {
 public:
  static constexpr int kThreads = kConsumers * kWarpgroup;
  static constexpr int kItem = kRows / 8 * kCores * kThreads;  // fours of an item
  // What is asked for at once, so that registers suffice: fours, of so many shares.
  static constexpr int kFours = (kRows > 32 ? 16 : 32) / 8 * kCores, kAtOnce = kRows > 96 ? 2 : 4;

  __device__ Joint(const TensorLinearArgs& a, const Item& item, int index)
      : first_(reinterpret_cast<float4*>(a.partial) + size_t(index - item.share) * kItem + threadIdx.x),
        own_(item.share),
        n_(a.n_shares),
        n_fours_((a.n_rows - item.row_tile * kRows + 7) / 8 * kCores) {}

  __device__ void leave(const Sums<kRows>& sums) const {
    float4* const to = first_ + own_ * kItem;
#pragma unroll
    for (int i = 0; i < kItem / kThreads; ++i)
      if (i < n_fours_) to[i * kThreads] = four(sums, i);
  }

  __device__ void add_all(Sums<kRows>& sums) const {
#pragma unroll
    for (int at = 0; at < kItem / kThreads; at += kFours) {
      if (at >= n_fours_) break;
      float4 total[kFours] = {};
      const float4* from = first_ + at * kThreads;
      for (int first = 0; first < n_; first += kAtOnce, from += kAtOnce * kItem) {
        float4 share[kAtOnce][kFours];
#pragma unroll
        for (int s = 0; s < kAtOnce; ++s) {
          const bool asks = first + s < n_ && first + s != own_;
#pragma unroll
          for (int i = 0; i < kFours; ++i)
            share[s][i] = asks && at + i < n_fours_ ? __ldcg(from + s * kItem + i * kThreads) : four(sums, at + i);
        }
#pragma unroll
        for (int s = 0; s < kAtOnce; ++s)
          if (first + s < n_)
#pragma unroll
            for (int i = 0; i < kFours; ++i) add(total[i], share[s][i]);
      }
#pragma unroll
      for (int i = 0; i < kFours; ++i) {
        float* const to = sums[(at + i) % kCores] + (at + i) / kCores * 4;
        to[0] = total[i].x, to[1] = total[i].y, to[2] = total[i].z, to[3] = total[i].w;
      }
    }
  }

 private:
  __device__ static float4 four(const Sums<kRows>& sums, int i) {
    const float* from = sums[i % kCores] + i / kCores * 4;
    return make_float4(from[0], from[1], from[2], from[3]);
  }

  float4* first_;          // the thread's of the tile's first share
  int own_, n_, n_fours_;  // fours: that a thread has of rows that exist
};

// Whether the warp has now the sums of all shares; if not, another block's will.
template <int kRows>
__device__ bool join_shares(const TensorLinearArgs& a, const Item& item, int index, Sums<kRows>& sums) {
  const Joint<kRows> joint(a, item, index);
  joint.leave(sums);
  if (!comes_last(a.arrivals[index / a.n_shares * kTileWarps + warp_id()], static_cast<unsigned>(a.n_shares)))
    return false;
  joint.add_all(sums);
  return true;
}

}  // namespace llorch::cuda
