// XXH3-64 of a row of logits, by two kernels; for .cu files.
//
// The algorithm, its constants and the default secret are those of the xxHash specification (Cyan4973/xxHash,
// doc/xxhash_spec.md, "XXH3 Algorithm Overview"), with seed 0. Of long inputs each block of 1024 bytes is a sum of 16
// stripes, which are added in any order, by a warp; only what follows a block (its scramble) is a chain, of eight
// lanes, for another kernel. Inputs up to 240 bytes, vocabularies of 60 ids, are for one thread of that one.
#pragma once

#include "backend/cuda/device_code.h"
#include "sampling/sample_token.h"

namespace llorch::cuda::xxh3 {

inline constexpr uint32_t kPrime32a = 0x9e3779b1u, kPrime32b = 0x85ebca77u, kPrime32c = 0xc2b2ae3du;
inline constexpr uint64_t kPrime1 = 0x9e3779b185ebca87u, kPrime2 = 0xc2b2ae3d27d4eb4fu, kPrime3 = 0x165667b19e3779f9u,
                          kPrime4 = 0x85ebca77c2b2ae63u, kPrime5 = 0x27d4eb2f165667c5u;

inline constexpr uint32_t kLanes = 8, kStripeBytes = 64, kStripes = 16;  // of a block
inline constexpr uint32_t kBlockBytes = kStripes * kStripeBytes;
inline constexpr uint32_t kSecretWords = 24, kSecretBytes = 8 * kSecretWords;
inline constexpr uint32_t kShortBytes = 240;  // up to here an input has no stripes

// Blocks whose sums lie in shared memory at once.
inline constexpr uint32_t kRound = 512, kAhead = 4;

__device__ const uint64_t kSecret[kSecretWords] = {
    0xbe4ba423396cfeb8, 0x1cad21f72c81017c, 0xdb979083e96dd4de, 0x1f67b3b7a4a44072, 0x78e5c0cc4ee679cb,
    0x2172ffcc7dd05a82, 0x8e2443f7744608b8, 0x4c263a81e69035e0, 0xcb00c391bb52283c, 0xa32e531b8b65d088,
    0x4ef90da297486471, 0xd8acdea946ef1938, 0x3f349ce33f76faa8, 0x1d4f0bc7c7bbdcf9, 0x3159b4cd4be0518a,
    0x647378d9c97e9fc8, 0xc3ebd33483acc5ea, 0xeb6313faffa081c5, 0x49daf0b751dd0d17, 0x9e68d429265516d3,
    0xfca1477d58be162b, 0xce31d07ad1b8f88f, 0x280416958f3acb45, 0x7e404bbbcafbd7af,
};

__device__ const uint64_t kFirst[kLanes] = {kPrime32c, kPrime1,   kPrime2, kPrime3,
                                            kPrime4,   kPrime32b, kPrime5, kPrime32a};

// What the threads share.
struct Shared {
  uint64_t sums[kRound + kAhead][kLanes];  // those behind the last are read, not used
};

// 8 bytes of the secret, from any byte on.
__device__ inline uint64_t secret_at(const uint64_t* secret, uint32_t byte) {
  const uint32_t shift = 8 * (byte % 8);
  const uint64_t low = secret[byte / 8] >> shift;
  return shift == 0 ? low : low | secret[byte / 8 + 1] << (64 - shift);
}

// A row's bytes, which are aligned as floats are.
struct Bytes {
  const float* row;
  uint64_t n;

  __device__ uint32_t u32(uint64_t at) const { return __float_as_uint(row[at / 4]); }
  __device__ uint64_t u64(uint64_t at) const { return uint64_t{u32(at + 4)} << 32 | u32(at); }
};

__device__ inline uint64_t fold(uint64_t a, uint64_t b) { return (a * b) ^ sampling_detail::multiply_high(a, b); }

__device__ inline uint64_t avalanche(uint64_t x) {
  x = (x ^ (x >> 37)) * 0x165667919e3779f9u;
  return x ^ (x >> 32);
}

__device__ inline uint64_t rotate_left(uint64_t x, int by) { return x << by | x >> (64 - by); }

__device__ inline uint64_t swap_bytes(uint64_t x) {
  uint64_t y = 0;
  for (int i = 0; i < 8; ++i) y = y << 8 | (x >> (8 * i) & 0xff);
  return y;
}

// 4 or 8 bytes.
__device__ inline uint64_t of_up_to_8(const Bytes& in) {
  const uint64_t value = uint64_t{in.u32(0)} << 32 | in.u32(in.n - 4);
  uint64_t x = value ^ (kSecret[1] ^ kSecret[2]);
  constexpr uint64_t kFactor = 0x9fb21c651e98df25u;
  x = (x ^ rotate_left(x, 49) ^ rotate_left(x, 24)) * kFactor;
  x = (x ^ ((x >> 35) + in.n)) * kFactor;
  return x ^ (x >> 28);
}

// 12 or 16 bytes.
__device__ inline uint64_t of_up_to_16(const Bytes& in) {
  const uint64_t low = in.u64(0) ^ (kSecret[3] ^ kSecret[4]);
  const uint64_t high = in.u64(in.n - 8) ^ (kSecret[5] ^ kSecret[6]);
  return avalanche(in.n + swap_bytes(low) + high + fold(low, high));
}

__device__ inline uint64_t mix_16(const Bytes& in, uint64_t at, uint32_t secret) {
  return fold(in.u64(at) ^ secret_at(kSecret, secret), in.u64(at + 8) ^ secret_at(kSecret, secret + 8));
}

// 20 to 128 bytes: pairs of 16 bytes from both ends.
__device__ inline uint64_t of_up_to_128(const Bytes& in) {
  uint64_t sum = in.n * kPrime1;
  for (uint32_t i = 0; i < (static_cast<uint32_t>(in.n) + 31) / 32; ++i)
    sum += mix_16(in, 16 * i, 32 * i) + mix_16(in, in.n - 16 * (i + 1), 32 * i + 16);
  return avalanche(sum);
}

// 132 to 240 bytes.
__device__ inline uint64_t of_up_to_240(const Bytes& in) {
  uint64_t sum = in.n * kPrime1;
  for (uint32_t i = 0; i < 8; ++i) sum += mix_16(in, 16 * i, 16 * i);
  sum = avalanche(sum);
  for (uint32_t i = 8; i < in.n / 16; ++i) sum += mix_16(in, 16 * i, 16 * (i - 8) + 3);
  sum += mix_16(in, in.n - 16, 136 - 17);
  return avalanche(sum);
}

__device__ inline uint64_t of_short(const Bytes& in) {
  if (in.n <= 8) return of_up_to_8(in);
  if (in.n <= 16) return of_up_to_16(in);
  return in.n <= 128 ? of_up_to_128(in) : of_up_to_240(in);
}

// The product that a stripe adds to a lane.
__device__ inline uint64_t product(uint64_t data, uint64_t secret) {
  const uint64_t key = data ^ secret;
  return (key & 0xffffffffu) * (key >> 32);
}

__device__ inline uint64_t shuffle_xor(uint64_t x, int by) {
  const uint32_t low = __shfl_xor_sync(kAllLanes, static_cast<uint32_t>(x), by);
  const uint32_t high = __shfl_xor_sync(kAllLanes, static_cast<uint32_t>(x >> 32), by);
  return uint64_t{high} << 32 | low;
}

// A warp's thread of a block has 16 bytes of two stripes, lanes 2 pair and 2 pair + 1: bytes 16 thread and 512 behind.
class BlockSum {
 public:
  // The secret's words, which may be asked for before there is a row.
  __device__ BlockSum() {
    const uint32_t lane = static_cast<uint32_t>(lane_id()), first = lane / 4 + 2 * (lane % 4);
    for (uint32_t i = 0; i < 2; ++i)
      for (uint32_t j = 0; j < 2; ++j) secret_[i][j] = kSecret[first + kStripes / 2 * i + j];
  }

  // Which of the eight lanes the threads below kLanes have the sums of.
  __device__ static uint32_t lane_of_sum() {
    const uint32_t lane = static_cast<uint32_t>(lane_id());
    return 2 * (lane % 4) + lane / 4;
  }

  // The sum over the first n_stripes stripes. All threads of a warp call it.
  __device__ uint64_t sum(const float4 (&x)[2], uint32_t n_stripes) const {
    const uint32_t stripe = static_cast<uint32_t>(lane_id()) / 4;
    uint64_t even = 0, odd = 0;
#pragma unroll
    for (uint32_t i = 0; i < 2; ++i) {
      if (stripe + kStripes / 2 * i >= n_stripes) continue;
      const uint64_t a = uint64_t{__float_as_uint(x[i].y)} << 32 | __float_as_uint(x[i].x);
      const uint64_t b = uint64_t{__float_as_uint(x[i].w)} << 32 | __float_as_uint(x[i].z);
      even += b + product(a, secret_[i][0]);
      odd += a + product(b, secret_[i][1]);
    }
    const bool keeps_odd = (lane_id() & 4) != 0;
    uint64_t mine = (keeps_odd ? odd : even) + shuffle_xor(keeps_odd ? even : odd, 4);
    mine += shuffle_xor(mine, 8);
    return mine + shuffle_xor(mine, 16);
  }

 private:
  uint64_t secret_[2][2];
};

// Stripes of a block; the last one of a row has any number, also none.
__device__ inline uint32_t stripes_of(uint32_t block, uint32_t vocab) {
  const uint64_t begin = uint64_t{block} * kBlockBytes, last = uint64_t{vocab} * 4 - 1;
  if (begin >= last) return 0;
  return last - begin >= kBlockBytes ? kStripes : static_cast<uint32_t>(last - begin) / kStripeBytes;
}

// A lane behind a block is scrambled, and the next block's sum is added. In words of 32 bits: of what a step waits for
// five operations are left.
__device__ inline uint64_t scramble_and_add(uint64_t acc, uint64_t secret, uint64_t sum) {
  const auto acc_high = static_cast<uint32_t>(acc >> 32);
  const uint32_t low = static_cast<uint32_t>(acc) ^ (acc_high >> 15) ^ static_cast<uint32_t>(secret);  // acc >> 47
  const uint32_t high = acc_high ^ static_cast<uint32_t>(secret >> 32);
  return uint64_t{low} * kPrime32a + (uint64_t{high * kPrime32a} << 32) + sum;
}

// What follows the sums of a row's blocks: the threads of a block go through all of them together.
class Chain {
 public:
  // The secret's words, which may be asked for before there is a row.
  __device__ Chain()
      : lane_(threadIdx.x % kLanes),
        first_(kFirst[lane_]),
        scramble_(kSecret[(kSecretBytes - kStripeBytes) / 8 + lane_]),
        last_(secret_at(kSecret, kSecretBytes - kStripeBytes - 7 + 8 * lane_)),
        merge_(secret_at(kSecret, 11 + 8 * lane_)) {}

  // sums [blocks of the row, kLanes]. Thread 0 gets the hash. Uses barriers.
  __device__ uint64_t hash(const float* row, uint32_t vocab, const uint64_t* sums, Shared& shared) const {
    const Bytes in{row, uint64_t{vocab} * 4};
    if (in.n <= kShortBytes) return threadIdx.x == 0 ? of_short(in) : 0;
    const uint64_t last = in.n - kStripeBytes;  // the last stripe, which may overlap the one before
    const uint64_t mine = in.u64(last + 8 * lane_), other = in.u64(last + 8 * (lane_ ^ 1));
    const auto n = static_cast<uint32_t>((in.n + kBlockBytes - 1) / kBlockBytes);
    uint64_t acc = first_ + __ldcg(sums + lane_);
    for (uint32_t begin = 1; begin < n; begin += kRound) {
      const uint32_t count = n - begin < kRound ? n - begin : kRound;
      const uint64_t* from = sums + size_t{begin} * kLanes;
#pragma unroll 4
      for (uint32_t i = threadIdx.x; i < count * kLanes; i += blockDim.x)
        shared.sums[i / kLanes][i % kLanes] = __ldcg(from + i);
      __syncthreads();
      if (warp_id() == 0) acc = go_through(acc, count, shared);  // its threads by eights, in step
      __syncthreads();
    }
    if (warp_id() != 0) return 0;
    acc = (acc + other + product(mine, last_)) ^ merge_;
    uint64_t sum = fold(acc, shuffle_xor(acc, 1));
    sum += shuffle_xor(sum, 2);
    return avalanche(in.n * kPrime1 + sum + shuffle_xor(sum, 4));
  }

 private:
  // Sums are asked for four blocks ahead: a step takes less time than it takes to read one.
  __device__ uint64_t go_through(uint64_t acc, uint32_t count, const Shared& shared) const {
    uint64_t next[kAhead];
    const auto read = [&](uint32_t begin) {
#pragma unroll
      for (uint32_t j = 0; j < kAhead; ++j) next[j] = shared.sums[begin + j][lane_];
    };
    read(0);
    uint32_t i = 0;
#pragma unroll 1
    for (; i + kAhead <= count; i += kAhead) {
      uint64_t sums[kAhead];
#pragma unroll
      for (uint32_t j = 0; j < kAhead; ++j) sums[j] = next[j];
      read(i + kAhead);
#pragma unroll
      for (uint32_t j = 0; j < kAhead; ++j) acc = scramble_and_add(acc, scramble_, sums[j]);
    }
#pragma unroll
    for (uint32_t j = 0; j < kAhead; ++j)
      if (i + j < count) acc = scramble_and_add(acc, scramble_, next[j]);
    return acc;
  }

  uint32_t lane_;
  uint64_t first_, scramble_, last_, merge_;
};

}  // namespace llorch::cuda::xxh3
