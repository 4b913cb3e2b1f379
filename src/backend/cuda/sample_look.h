// What sampling's two kernels share: how logits are read, and what the first one has seen of them; for .cu files.
#pragma once

#include "backend/cuda/device_code.h"
#include "backend/cuda/sample.h"

namespace llorch::cuda {

// The first kernel.
void look(const KernelStream& stream, const SampleArgs& args, int32_t n);

// The logits [id, id + 4); padding for those from `end` on. id is a multiple of 4.
__device__ inline float4 load_4(const float* row, uint32_t id, uint32_t end, float padding) {
  if (reinterpret_cast<uintptr_t>(row) % 16 == 0 && id + 4 <= end) return *reinterpret_cast<const float4*>(row + id);
  const auto at = [&](uint32_t i) { return i < end ? row[i] : padding; };
  return make_float4(at(id), at(id + 1), at(id + 2), at(id + 3));
}

// The four one after the other.
template <typename F>
__device__ void for_each_of(const float4& x, uint32_t id, F f) {
  f(id, x.x);
  f(id + 1, x.y);
  f(id + 2, x.z);
  f(id + 3, x.w);
}

// Of a warp's looks; every lane gets it.
__device__ inline Look join(const Look& mine) {
  const auto high = static_cast<unsigned>(mine.best >> 32), highest = integer_max(high);
  const unsigned low = integer_max(high == highest ? static_cast<unsigned>(mine.best) : 0u);
  return {integer_max(mine.largest), integer_max(mine.different), uint64_t{highest} << 32 | low};
}

__device__ inline void see(Look& look, const Look& other) {
  look.largest = other.largest > look.largest ? other.largest : look.largest;
  look.different |= other.different;
  look.best = other.best > look.best ? other.best : look.best;
}

// What its blocks have seen of a row, for each warp of the second kernel.
__device__ inline Look look_of_row(const SampleArgs& a, uint32_t row) {
  const uint32_t n = n_looks(a.vocab);
  Look mine;
#pragma unroll 1
  for (uint32_t i = static_cast<uint32_t>(lane_id()); i < n; i += kWarp)
    see(mine, a.scratch.looks[size_t{row} * n + i]);
  return join(mine);
}

}  // namespace llorch::cuda
