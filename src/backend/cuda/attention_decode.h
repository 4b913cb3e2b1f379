// What a block of attention_of_decodes works on, and how that comes into shared memory: the row's queries, its own key
// and value, and chunks of keys and values from the pages. For attention_decode.cu.
#pragma once

#include "backend/cuda/async_copy.h"
#include "backend/cuda/attention.h"
#include "backend/cuda/rope.h"

namespace llorch::cuda {

inline constexpr int kMaxTeams = 4;

template <int kQueries>
inline constexpr int kTeamThreads = kChunk*(kQueries < 4 ? kQueries : 4);

// A block's shared memory: this, then rows of head_dim floats, then each team's chunk of keys and values.
template <int kQueries>
struct DecodeShared {
  float p[kMaxTeams][kQueries][kChunk];  // scores, then their exp
  ChunkSum sums[kMaxTeams][kQueries];    // of this round's chunks
  ChunkSum total_sums[2][kQueries];      // before this round, and after it
  alignas(16) unsigned is_last;

  // The rows: queries, the row's own key (rotated) and value, sums of the chunks so far, outputs of this round's
  // chunks.
  static constexpr int kOwn = kQueries, kTotal = kOwn + 2, kOutputs = kTotal + kQueries;
  static constexpr int n_rows(int teams) { return kOutputs + teams * kQueries; }
  __device__ float* row(int i, int head_dim) { return reinterpret_cast<float*>(this + 1) + i * head_dim; }
};

// Keys and values of one head in the pages of a chunk, as they lie in their pages, page behind page.
__host__ __device__ inline size_t chunk_bytes(const KvView& kv) {
  return 2 * kv.half_bytes * static_cast<size_t>(kChunk >> kv.page_shift);
}

// What a block works on.
struct DecodeWork {
  int row, kv_head, first_head, n_queries;
  uint32_t position;
  Range range;
  const uint32_t* table;
  Range chunks;
  uint32_t n_blocks;  // that share it
  bool is_first_of_group;
};

template <int kQueries>
__device__ DecodeWork find_work(const AttentionArgs& a, int teams) {
  const int group = a.kv.n_heads / a.kv.n_kv_heads, tiles = (group + kQueries - 1) / kQueries;
  const int row = static_cast<int>(blockIdx.x), kv_head = static_cast<int>(blockIdx.y) / tiles;
  const int first = static_cast<int>(blockIdx.y) % tiles * kQueries;
  DecodeWork w;
  w.row = row;
  w.kv_head = kv_head;
  w.first_head = kv_head * group + first;
  w.n_queries = kQueries == 1 ? 1 : group - first < kQueries ? group - first : kQueries;
  w.position = a.batch.positions[row];
  w.range = seen(a, w.position);
  w.table = a.batch.pages + a.batch.tables[row];
  w.chunks = chunks_of(w.range);
  const uint32_t rounds =
      (w.chunks.end - w.chunks.begin + static_cast<uint32_t>(teams) - 1) / static_cast<uint32_t>(teams);
  w.n_blocks = rounds < gridDim.z ? rounds : gridDim.z;
  w.is_first_of_group = first == 0;
  return w;
}

// The first position, inside its page, that has a byte in a unit of 16 of the page's keys and values.
__device__ inline int first_position_of(const KvView& kv, int byte) {
  const auto half = static_cast<int>(kv.half_bytes);
  if (byte >= half) return (byte - half) / kv.value_bytes;
  const int page_size = 1 << kv.page_shift;
  if (kv.dtype != DType::kQ8_0) return byte / 16 % page_size;
  const int codes = kv.head_dim * page_size;
  return byte < codes ? byte / 8 % page_size : (byte - codes) / 2 % page_size;
}

// By a team: asks for a chunk's keys and values at positions below `end`. A unit may hold ends of values behind it.
__device__ inline void ask_for_chunk(const AttentionArgs& a, const DecodeWork& w, uint32_t chunk, uint32_t end,
                                     std::byte* slot, int t, int n_threads) {
  const int page_size = 1 << a.kv.page_shift, page_bytes = 2 * static_cast<int>(a.kv.half_bytes);
  for (int i = 0; i < kChunk >> a.kv.page_shift; ++i) {
    const uint32_t first = chunk * kChunk + static_cast<uint32_t>(i * page_size);
    if (first >= end || first + static_cast<uint32_t>(page_size) <= w.range.begin) continue;
    const std::byte* from = head_in_page(a.kv, w.kv_head, w.table[first >> a.kv.page_shift]);
    for (int byte = 16 * t; byte < page_bytes; byte += 16 * n_threads)
      if (first + static_cast<uint32_t>(first_position_of(a.kv, byte)) < end)
        copy_16(slot + i * page_bytes + byte, from + byte);
  }
}

// The angle of a thread's pair: asked for early.
struct Angle {
  float cos = 1.0f, sin = 0.0f;
};
__device__ inline Angle angle_of(const AttentionArgs& a, uint32_t position, int pair) {
  if (a.cos == nullptr) return {};
  const size_t at = size_t{position} * static_cast<size_t>(a.kv.head_dim / 2) + static_cast<size_t>(pair);
  return {a.cos[at], a.sin[at]};
}

// The queries and, where RopeAppend is fused, the row's own key and value into shared memory. first: of the thread's
// first pair.
template <int kQueries>
__device__ void load_row(const AttentionArgs& a, const DecodeWork& w, Angle first_angle, DecodeShared<kQueries>& s) {
  using S = DecodeShared<kQueries>;
  const int head_dim = a.kv.head_dim, half = head_dim / 2;
  const float* row = qkv_row(a, static_cast<uint32_t>(w.row));
  const float* key = row + (a.kv.n_heads + w.kv_head) * head_dim;
  const bool rotates = a.cos != nullptr;
  const int n_rotated = w.n_queries + (rotates ? 1 : 0);
#pragma unroll 1
  for (int i = static_cast<int>(threadIdx.x); i < n_rotated * half; i += static_cast<int>(blockDim.x)) {
    const int q = i / half, j = i % half;
    const float* from = q < w.n_queries ? row + (w.first_head + q) * head_dim : key;
    float* const to = s.row(q < w.n_queries ? q : S::kOwn, head_dim);
    const Pair d = pair_of(a.pairs, half, j);
    float first = from[d.first], second = from[d.second];
    const Angle angle = i == static_cast<int>(threadIdx.x) ? first_angle : angle_of(a, w.position, j);
    if (rotates) rotate(first, second, angle.cos, angle.sin);
    to[d.first] = first;
    to[d.second] = second;
  }
  if (!rotates) return;
  const float* value = key + a.kv.n_kv_heads * head_dim;
  // From the last threads on, which have no pair where there are enough.
#pragma unroll 1
  for (int d = static_cast<int>(blockDim.x - 1 - threadIdx.x); d < head_dim; d += static_cast<int>(blockDim.x))
    s.row(S::kOwn + 1, head_dim)[d] = value[d];
}

// Appends a key and a value [head_dim] to one head of a page, or of its copy. By n threads, whole warps.
__device__ inline void append(const AttentionArgs& a, int in_page, const float* key, const float* value,
                              std::byte* head, int t, int n) {
  if (a.kv.dtype == DType::kQ8_0) {
#pragma unroll 1
    for (int d = t / kWarp * kKvBlockSize; d < a.kv.head_dim; d += n / kWarp * kKvBlockSize)
      append_q8(a.kv, head, in_page, d, key, value);
    return;
  }
#pragma unroll 1
  for (int d = t; d < a.kv.head_dim; d += n) {
    store_key(a.kv, head, in_page, d, key[d]);
    store_value(a.kv, head + a.kv.half_bytes, in_page, d, value[d]);
  }
}

// By the team that has the row's own position: its key and value into the copy of the chunk and, once for all heads of
// a group, into the page itself.
template <int kQueries>
__device__ void append_own(const AttentionArgs& a, const DecodeWork& w, DecodeShared<kQueries>& s, std::byte* slot,
                           int t) {
  using S = DecodeShared<kQueries>;
  const int in_page = static_cast<int>(w.position) & ((1 << a.kv.page_shift) - 1);
  const int page = static_cast<int>(w.position % kChunk) >> a.kv.page_shift;  // of the chunk's
  const float *key = s.row(S::kOwn, a.kv.head_dim), *value = s.row(S::kOwn + 1, a.kv.head_dim);
  append(a, in_page, key, value, slot + size_t(page) * 2 * a.kv.half_bytes, t, kTeamThreads<kQueries>);
  if (w.is_first_of_group)
    append(a, in_page, key, value, head_in_page(a.kv, w.kv_head, w.table[w.position >> a.kv.page_shift]), t,
           kTeamThreads<kQueries>);
}

}  // namespace llorch::cuda
