// XXH3-64 of a row of logits, by one block; for .cu files.
//
// The algorithm, its constants and the default secret are those of the xxHash specification (Cyan4973/xxHash,
// doc/xxhash_spec.md, "XXH3 Algorithm Overview"), with seed 0. Of long inputs each block of 1024 bytes is a sum of 16
// stripes, which are added in any order by eight threads; only what follows a block (its scramble) is a chain, of eight
// lanes. Inputs up to 240 bytes, vocabularies of 60 ids, are for one thread.
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
inline constexpr uint32_t kThreadsOfBlock = 8;  // each adds two lanes of half of the stripes

// Blocks whose sums lie in shared memory at once.
inline constexpr uint32_t kRound = 512;

__device__ const uint64_t kSecret[kSecretWords] = {
    0xbe4ba423396cfeb8, 0x1cad21f72c81017c, 0xdb979083e96dd4de, 0x1f67b3b7a4a44072, 0x78e5c0cc4ee679cb,
    0x2172ffcc7dd05a82, 0x8e2443f7744608b8, 0x4c263a81e69035e0, 0xcb00c391bb52283c, 0xa32e531b8b65d088,
    0x4ef90da297486471, 0xd8acdea946ef1938, 0x3f349ce33f76faa8, 0x1d4f0bc7c7bbdcf9, 0x3159b4cd4be0518a,
    0x647378d9c97e9fc8, 0xc3ebd33483acc5ea, 0xeb6313faffa081c5, 0x49daf0b751dd0d17, 0x9e68d429265516d3,
    0xfca1477d58be162b, 0xce31d07ad1b8f88f, 0x280416958f3acb45, 0x7e404bbbcafbd7af,
};

// What the threads share.
struct Shared {
  uint64_t secret[kSecretWords];
  uint64_t sums[kRound][kLanes];
  uint64_t lanes[kLanes];
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

// 16 bytes, of which only the first 4 need be aligned if kAligned is false.
template <bool kAligned>
__device__ inline float4 load_16(const float* from) {
  if constexpr (kAligned) return *reinterpret_cast<const float4*>(from);
  return make_float4(from[0], from[1], from[2], from[3]);
}

struct LanePair {
  uint64_t even = 0, odd = 0;
};

// Lanes 2 pair and 2 pair + 1 of the stripes [first, first + 8) of a block, those below n_stripes.
template <bool kAligned>
__device__ inline LanePair add_stripes(const float* block, uint32_t first, uint32_t n_stripes, uint32_t pair,
                                       const uint64_t* secret) {
  LanePair sum;
  const auto add = [&](uint32_t stripe) {
    const float4 x = load_16<kAligned>(block + size_t{stripe} * (kStripeBytes / 4) + 4 * pair);
    const uint64_t a = uint64_t{__float_as_uint(x.y)} << 32 | __float_as_uint(x.x);
    const uint64_t b = uint64_t{__float_as_uint(x.w)} << 32 | __float_as_uint(x.z);
    sum.even += b + product(a, secret[stripe + 2 * pair]);
    sum.odd += a + product(b, secret[stripe + 2 * pair + 1]);
  };
  if (n_stripes >= first + kStripes / 2) {
#pragma unroll
    for (uint32_t i = 0; i < kStripes / 2; ++i) add(first + i);
  } else {
    for (uint32_t stripe = first; stripe < n_stripes; ++stripe) add(stripe);
  }
  return sum;
}

__device__ inline uint64_t shuffle_xor(uint64_t x, int by) {
  const uint32_t low = __shfl_xor_sync(kAllLanes, static_cast<uint32_t>(x), by);
  const uint32_t high = __shfl_xor_sync(kAllLanes, static_cast<uint32_t>(x >> 32), by);
  return uint64_t{high} << 32 | low;
}

// The sums of the blocks [begin, begin + count), which may end with a part of a block, into shared memory.
template <bool kAligned>
__device__ inline void sum_blocks(const Bytes& in, uint32_t begin, uint32_t count, Shared& shared) {
  const uint64_t whole = (in.n - 1) / kBlockBytes;                                           // blocks
  const auto rest = static_cast<uint32_t>((in.n - 1 - whole * kBlockBytes) / kStripeBytes);  // stripes behind them
  const uint32_t in_block = threadIdx.x % kThreadsOfBlock, pair = in_block % 4, first = in_block / 4 * (kStripes / 2);
  const uint32_t at_once = blockDim.x / kThreadsOfBlock;
  for (uint32_t i0 = 0; i0 < count; i0 += at_once) {  // all threads of a warp go along
    const uint32_t i = i0 + threadIdx.x / kThreadsOfBlock;
    const uint32_t n_stripes = i >= count ? 0 : begin + i < whole ? kStripes : rest;
    const float* block = in.row + size_t{begin + i} * (kBlockBytes / 4);
    LanePair sum = add_stripes<kAligned>(block, first, n_stripes, pair, shared.secret);
    sum.even += shuffle_xor(sum.even, 4);
    sum.odd += shuffle_xor(sum.odd, 4);
    if (i >= count || first != 0) continue;
    shared.sums[i][2 * pair] = sum.even;
    shared.sums[i][2 * pair + 1] = sum.odd;
  }
}

__device__ inline uint64_t first_value(uint32_t lane) {
  const uint64_t values[kLanes] = {kPrime32c, kPrime1, kPrime2, kPrime3, kPrime4, kPrime32b, kPrime5, kPrime32a};
  return values[lane];
}

// All threads of the block call it, blockDim.x a multiple of kWarp; thread 0 gets the hash. Uses barriers.
__device__ inline uint64_t of_row(const float* row, uint32_t vocab, Shared& shared) {
  const Bytes in{row, uint64_t{vocab} * 4};
  if (in.n <= 240) return threadIdx.x == 0 ? of_short(in) : 0;
  for (uint32_t i = threadIdx.x; i < kSecretWords; i += blockDim.x) shared.secret[i] = kSecret[i];
  __syncthreads();
  const auto whole = static_cast<uint32_t>((in.n - 1) / kBlockBytes);
  const uint32_t lane = threadIdx.x;
  uint64_t acc = lane < kLanes ? first_value(lane) : 0;
  for (uint32_t begin = 0; begin <= whole; begin += kRound) {
    const uint32_t count = whole + 1 - begin < kRound ? whole + 1 - begin : kRound;
    if (reinterpret_cast<uintptr_t>(row) % 16 == 0)
      sum_blocks<true>(in, begin, count, shared);
    else
      sum_blocks<false>(in, begin, count, shared);
    __syncthreads();
    if (lane < kLanes) {
      const uint64_t secret = shared.secret[(kSecretBytes - kStripeBytes) / 8 + lane];
      const uint32_t scrambled = begin + count > whole ? count - 1 : count;
#pragma unroll 4
      for (uint32_t i = 0; i < scrambled; ++i) {
        acc += shared.sums[i][lane];
        acc = (acc ^ (acc >> 47) ^ secret) * kPrime32a;
      }
      if (scrambled < count) acc += shared.sums[scrambled][lane];
    }
    __syncthreads();
  }
  if (lane < kLanes) {  // the last stripe, which may overlap the one before
    const uint64_t at = in.n - kStripeBytes;
    acc += in.u64(at + 8 * (lane ^ 1));
    acc += product(in.u64(at + 8 * lane), secret_at(shared.secret, kSecretBytes - kStripeBytes - 7 + 8 * lane));
    shared.lanes[lane] = acc;
  }
  if (warp_id() == 0) __syncwarp();
  if (threadIdx.x != 0) return 0;
  uint64_t sum = in.n * kPrime1;
  for (uint32_t i = 0; i < kLanes; i += 2)
    sum += fold(shared.lanes[i] ^ secret_at(shared.secret, 11 + 8 * i),
                shared.lanes[i + 1] ^ secret_at(shared.secret, 11 + 8 * (i + 1)));
  return avalanche(sum);
}

}  // namespace llorch::cuda::xxh3
