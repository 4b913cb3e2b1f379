// Shares of K: where several blocks have a tile, each leaves its sums in device memory, and the last to come adds all
// of them in ascending order, so that no bit depends on which it is. For linear_tensor.cu.
//
// A thread has the same outputs in each block: sums lie as threads have them, [items][rows / 8][core][256 threads][4],
// and a warp asks for nobody but the same warps of the other blocks. So warps arrive one by one, without a barrier.
#pragma once

#include "backend/cuda/linear_tensor.h"

namespace llorch::cuda {

inline constexpr int kFours = kJoinedRows / 8 * kCores;  // what a thread has of as many rows, four sums each

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
  static constexpr int kAtOnce = kRows > 64 ? 2 : 4;           // shares that are asked for; so that registers suffice

  __device__ Joint(const TensorLinearArgs& a, const Item& item, int index)
      : first_(reinterpret_cast<float4*>(a.partial) + size_t(index - item.share) * kItem + threadIdx.x),
        own_(item.share),
        n_(a.n_shares),
        n_rows_(a.n_rows - item.row_tile * kRows) {}

  __device__ void leave(const Sums<kRows>& sums) const {
    float4* const to = first_ + own_ * kItem;
#pragma unroll
    for (int row = 0; row < kRows; row += kJoinedRows) {
      if (row >= n_rows_) break;
#pragma unroll
      for (int i = 0; i < kFours; ++i) to[at(row, i)] = four(sums, row, i);
    }
  }

  __device__ void add_all(Sums<kRows>& sums) const {
#pragma unroll
    for (int row = 0; row < kRows; row += kJoinedRows) {
      if (row >= n_rows_) break;
      float4 total[kFours] = {};
      const float4* from = first_;
      for (int first = 0; first < n_; first += kAtOnce, from += kAtOnce * kItem) {
        float4 share[kAtOnce][kFours];
#pragma unroll
        for (int s = 0; s < kAtOnce; ++s) {
          const bool asks = first + s < n_ && first + s != own_;
#pragma unroll
          for (int i = 0; i < kFours; ++i)
            share[s][i] = asks ? __ldcg(from + s * kItem + at(row, i)) : four(sums, row, i);
        }
#pragma unroll
        for (int s = 0; s < kAtOnce; ++s)
          if (first + s < n_)
#pragma unroll
            for (int i = 0; i < kFours; ++i) add(total[i], share[s][i]);
      }
#pragma unroll
      for (int i = 0; i < kFours; ++i) {
        float* const to = sums[i % kCores] + (row / 8 + i / kCores) * 4;
        to[0] = total[i].x, to[1] = total[i].y, to[2] = total[i].z, to[3] = total[i].w;
      }
    }
  }

 private:
  __device__ static int at(int row, int i) { return (row / 8 * kCores + i) * kThreads; }
  __device__ static float4 four(const Sums<kRows>& sums, int row, int i) {
    const float* from = sums[i % kCores] + (row / 8 + i / kCores) * 4;
    return make_float4(from[0], from[1], from[2], from[3]);
  }

  float4* first_;  // the thread's of the tile's first share
  int own_, n_, n_rows_;
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
