// Attention of decodes, where each row is a sequence of its own (docs/numerics.md gives the order of its sums). A block
// has up to kQueries heads that share a KV head, and `teams` of threads that each take a chunk of 64 positions at a
// time. Scores: a thread is a position. Softmax: a warp is a query. Values: a thread is an element of the output. Then
// the chunks are joined, left to right.
//
// Keys and values of earlier steps are asked for before the kernel waits for its inputs. The row's own, and its
// queries, are rotated here, and appended to the pages: one kernel less to wait for.
//
// Where a row has more chunks than a block takes at once, several blocks share it: each leaves the sums of its chunks,
// and the block that comes last joins them.
#include <bit>

#include "backend/cuda/attention_decode.h"
#include "backend/cuda/prepare.h"

namespace llorch::cuda {
namespace {

constexpr size_t kMaxChunkBytes = 160 << 10;  // of all teams: keys and values; if a block can have so much

// By a team of kTeamThreads: p[query][position of the chunk] = score, for the positions that the row sees.
template <DType kKv, int kQueries>
__device__ void score(const AttentionArgs& a, const DecodeWork& w, uint32_t chunk, const std::byte* slot,
                      DecodeShared<kQueries>& s, int t, float (*p)[kChunk]) {
  constexpr int kStep = kTeamThreads<kQueries> / kChunk, kPerThread = kQueries / kStep;
  const int in_chunk = t % kChunk, first = t / kChunk;
  if (!w.range.has(chunk * kChunk + static_cast<uint32_t>(in_chunk)) || first >= w.n_queries) return;
  const int in_page = in_chunk & ((1 << a.kv.page_shift) - 1);
  const std::byte* keys = slot + size_t(in_chunk >> a.kv.page_shift) * 2 * a.kv.half_bytes;
  const float* queries[kPerThread];
  float sum[kPerThread];
#pragma unroll
  for (int i = 0; i < kPerThread; ++i)
    queries[i] = s.row(first + i * kStep < w.n_queries ? first + i * kStep : 0, a.kv.head_dim);
  multiply_key<kKv>(a.kv, keys, in_page, queries, sum);
#pragma unroll
  for (int i = 0; i < kPerThread; ++i)
    if (first + i * kStep < w.n_queries) p[first + i * kStep][in_chunk] = __fmul_rn(sum[i], a.scale);
}

// One element d of kN queries, first, first + step, ...: the chunk's weighted values, positions ascending. o: the rows
// of the chunk's output.
template <DType kKv, int kN>
__device__ void weigh(const AttentionArgs& a, const DecodeWork& w, uint32_t chunk, const std::byte* slot, int d,
                      int first, int step, const float (*p)[kChunk], float* o) {
  const uint32_t base = chunk * kChunk;
  const int begin = w.range.begin > base ? static_cast<int>(w.range.begin - base) : 0;
  const int end = w.range.end < base + kChunk ? static_cast<int>(w.range.end - base) : kChunk;
  const int page_size = 1 << a.kv.page_shift;
  float sum[kN];
  const float* weights[kN];
#pragma unroll
  for (int j = 0; j < kN; ++j) {
    sum[j] = 0.0f;
    weights[j] = p[first + j * step < w.n_queries ? first + j * step : 0];
  }
  // Page by page, so that the next value is one addition away.
  for (int i = begin; i < end;) {
    const int in_page = i & (page_size - 1), last = end < i - in_page + page_size ? end : i - in_page + page_size;
    const std::byte* values = slot + size_t(i >> a.kv.page_shift) * 2 * a.kv.half_bytes + a.kv.half_bytes;
    int at = in_page;
#pragma unroll 1
    for (; i < last && i % 4 != 0; ++i, ++at) {
      const float v = value_at<kKv>(a.kv, values, at, d);
#pragma unroll
      for (int j = 0; j < kN; ++j) sum[j] = __fmaf_rn(weights[j][i], v, sum[j]);
    }
#pragma unroll 2
    for (; i + 4 <= last; i += 4, at += 4) {
      float v[4];
#pragma unroll
      for (int k = 0; k < 4; ++k) v[k] = value_at<kKv>(a.kv, values, at + k, d);
#pragma unroll
      for (int j = 0; j < kN; ++j) {
        const float4 four = *reinterpret_cast<const float4*>(weights[j] + i);
        sum[j] = __fmaf_rn(four.x, v[0], sum[j]);
        sum[j] = __fmaf_rn(four.y, v[1], sum[j]);
        sum[j] = __fmaf_rn(four.z, v[2], sum[j]);
        sum[j] = __fmaf_rn(four.w, v[3], sum[j]);
      }
    }
#pragma unroll 1
    for (; i < last; ++i, ++at) {
      const float v = value_at<kKv>(a.kv, values, at, d);
#pragma unroll
      for (int j = 0; j < kN; ++j) sum[j] = __fmaf_rn(weights[j][i], v, sum[j]);
    }
  }
#pragma unroll
  for (int j = 0; j < kN; ++j)
    if (first + j * step < w.n_queries) o[(first + j * step) * a.kv.head_dim + d] = sum[j];
}

// By a team: all elements of a chunk's output.
template <DType kKv, int kQueries>
__device__ void weigh_all(const AttentionArgs& a, const DecodeWork& w, uint32_t chunk, const std::byte* slot, int t,
                          const float (*p)[kChunk], float* o) {
  constexpr int kThreads = kTeamThreads<kQueries>;
  const int head_dim = a.kv.head_dim, step = head_dim < kThreads ? kThreads / head_dim : 1;
  const int first = head_dim < kThreads ? t / head_dim : 0;
  if (first >= step) return;
  const int n = (w.n_queries + step - 1) / step;  // of a thread
  for (int d = head_dim < kThreads ? t % head_dim : t; d < head_dim; d += kThreads) {
    if (kQueries == 1 || n == 1)
      weigh<kKv, 1>(a, w, chunk, slot, d, first, step, p, o);
    else if (kQueries == 2 || n == 2)
      weigh<kKv, 2>(a, w, chunk, slot, d, first, step, p, o);
    else if (kQueries == 4 || n <= 4)
      weigh<kKv, 4>(a, w, chunk, slot, d, first, step, p, o);
    else
      weigh<kKv, 8>(a, w, chunk, slot, d, first, step, p, o);
  }
}

// By whole warps, 32 neighbouring elements each, if there are int16 blocks to make.
__device__ inline void put(const AttentionArgs& a, const DecodeWork& w, int query, int d, float y) {
  const size_t at = (size_t(w.row) * a.kv.n_heads + w.first_head + query) * a.kv.head_dim + d;
  a.y[at] = y;
  if (a.packed_y.q != nullptr) pack_block(y, a.packed_y, at / kQuantBlock);
}

// A round's chunks of a block that has the row for itself, joined to what came before.
template <int kQueries>
__device__ void join(const AttentionArgs& a, const DecodeWork& w, int n_chunks, bool is_first, bool is_last,
                     DecodeShared<kQueries>& s) {
  using S = DecodeShared<kQueries>;
  const int n = w.n_queries * a.kv.head_dim;
#pragma unroll 1
  for (int i = static_cast<int>(threadIdx.x); i < n; i += static_cast<int>(blockDim.x)) {
    const int q = i / a.kv.head_dim, d = i % a.kv.head_dim;
    float& total = s.row(S::kTotal + q, a.kv.head_dim)[d];
    float o = is_first ? 0.0f : total;
    ChunkSum sum = is_first ? ChunkSum{-INFINITY, 0.0f} : s.total_sums[0][q];
    // All factors first: they follow from the maxima alone, so that their exps go side by side.
    float old_factors[kMaxTeams], new_factors[kMaxTeams];
#pragma unroll
    for (int c = 0; c < kMaxTeams; ++c)
      if (c < n_chunks) {
        const float m = s.sums[c][q].m, largest = m > sum.m ? m : sum.m;
        old_factors[c] = exp_f32(__fadd_rn(sum.m, -largest));
        new_factors[c] = exp_f32(__fadd_rn(m, -largest));
        sum.m = largest;
      }
#pragma unroll
    for (int c = 0; c < kMaxTeams; ++c)
      if (c < n_chunks) {
        sum.l = __fmaf_rn(sum.l, old_factors[c], __fmul_rn(s.sums[c][q].l, new_factors[c]));
        o = __fmaf_rn(o, old_factors[c],
                      __fmul_rn(s.row(S::kOutputs + c * kQueries + q, a.kv.head_dim)[d], new_factors[c]));
      }
    total = o;
    if (d == 0) s.total_sums[1][q] = sum;
    if (is_last) put(a, w, q, d, __fdiv_rn(o, sum.l));
  }
  __syncthreads();
  if (static_cast<int>(threadIdx.x) < w.n_queries) s.total_sums[0][threadIdx.x] = s.total_sums[1][threadIdx.x];
}

// By a team: leaves its chunk's sums for the block that comes last.
template <int kQueries>
__device__ void leave_chunk(const AttentionArgs& a, const DecodeWork& w, uint32_t chunk, int team, int t,
                            DecodeShared<kQueries>& s) {
  for (int q = 0; q < w.n_queries; ++q) {
    float* part = partial_of<kQueries>(a, chunk, q);
#pragma unroll 1
    for (int d = t; d < a.kv.head_dim; d += kTeamThreads<kQueries>)
      part[d] = s.row(DecodeShared<kQueries>::kOutputs + team * kQueries + q, a.kv.head_dim)[d];
    if (t == 0) {
      part[a.kv.head_dim] = s.sums[team][q].m;
      part[a.kv.head_dim + 1] = s.sums[team][q].l;
    }
  }
}

template <int kQueries>
__device__ void join_all(const AttentionArgs& a, const DecodeWork& w) {
  const int n = w.n_queries * a.kv.head_dim;
#pragma unroll 1
  for (int i = static_cast<int>(threadIdx.x); i < n; i += static_cast<int>(blockDim.x)) {
    const int q = i / a.kv.head_dim, d = i % a.kv.head_dim;
    put(a, w, q, d, join_chunks<kQueries>(a, w.chunks, q, d));
  }
}

// By the blocks of a single row that have no chunk: while attention is at work, the device's memory has little to do.
// One request a block: several, smaller ones are slower.
__device__ inline void fetch_weights(const AttentionArgs& a, const DecodeWork& w) {
  if (threadIdx.x != 0 || a.ahead.bytes == 0) return;
  constexpr uint32_t kLine = 128;
  const uint32_t blocks = (gridDim.z - w.n_blocks) * gridDim.y;
  const uint32_t block = (blockIdx.z - w.n_blocks) * gridDim.y + blockIdx.y;
  const uint32_t share = (a.ahead.bytes / blocks + kLine - 1) / kLine * kLine, begin = block * share;
  if (begin >= a.ahead.bytes) return;
  fetch_ahead(a.ahead.at + begin, share < a.ahead.bytes - begin ? share : a.ahead.bytes - begin);
}

// What the compiler may know of the usual case: heads of kDim elements in pages of a chunk, and as many teams as may
// be.
template <DType kKv, int kDim>
__device__ AttentionArgs with_constants(AttentionArgs a) {
  a.kv.dtype = kKv;
  if constexpr (kDim != 0) {
    a.kv.head_dim = kDim;
    a.kv.page_shift = std::countr_zero(unsigned{kChunk});
    a.kv.value_bytes = kDim * 2;
    a.kv.half_bytes = size_t{kChunk} * kDim * 2;
  }
  return a;
}
template <int kDim>
bool is_usual(const KvView& kv) {
  return kv.dtype == DType::kF16 && kv.head_dim == kDim && 1 << kv.page_shift == kChunk;
}

// kDim: of the usual case, 0: any. A decode's instructions run once or twice, so most of them come from memory: with
// constants there are fewer, and no divisions; and loops of one turn are not unrolled.
template <DType kKv, int kQueries, int kDim>
__global__ void __launch_bounds__(kMaxTeams* kTeamThreads<kQueries>)
    attention_decode_kernel(const __grid_constant__ AttentionArgs given) {
  constexpr int kThreads = kTeamThreads<kQueries>;
  const AttentionArgs a = with_constants<kKv, kDim>(given);
  auto& s = *reinterpret_cast<DecodeShared<kQueries>*>(shared_memory());
  const int team = static_cast<int>(threadIdx.x) / kThreads, t = static_cast<int>(threadIdx.x) % kThreads;
  const int teams = kDim != 0 ? kMaxTeams : static_cast<int>(blockDim.x) / kThreads;
  std::byte* const slot = reinterpret_cast<std::byte*>(s.row(DecodeShared<kQueries>::n_rows(teams), a.kv.head_dim)) +
                          size_t(team) * chunk_bytes(a.kv);
  const bool rotates = a.cos != nullptr;
  if (!rotates) wait_for_inputs();  // the row's own position was appended just before
  const DecodeWork w = find_work<kQueries>(a, teams);
  if (blockIdx.z >= w.n_blocks) return fetch_weights(a, w);
  const uint32_t stride = static_cast<uint32_t>(teams) * w.n_blocks;
  uint32_t first = w.chunks.begin + blockIdx.z * static_cast<uint32_t>(teams);
  const uint32_t end = rotates ? w.position : w.range.end;  // of what lies in the pages
  const auto ask = [&](uint32_t chunk) {
    if (chunk < w.chunks.end) ask_for_chunk(a, w, chunk, end, slot, t, kThreads);
    commit_copies();
  };
  ask(first + static_cast<uint32_t>(team));
  const Angle angle = angle_of(a, w.position, static_cast<int>(threadIdx.x) % (a.kv.head_dim / 2));
  if (rotates) {
    if (a.next == NextBegins::kAtOnce) let_next_begin();
    wait_for_earlier();
  }
  load_row<kQueries>(a, w, angle, s);
  if (rotates && a.next != NextBegins::kAtOnce) let_next_begin();
  for (bool is_first = true; first < w.chunks.end; first += stride, is_first = false) {
    const uint32_t chunk = first + static_cast<uint32_t>(team);
    const bool has = chunk < w.chunks.end;
    wait_for_copies<0>();
    __syncthreads();
    if (rotates && w.chunks.end <= first + static_cast<uint32_t>(teams)) {
      if (chunk + 1 == w.chunks.end) append_own<kQueries>(a, w, s, slot, t);
      __syncthreads();
    }
    if (has) score<kKv, kQueries>(a, w, chunk, slot, s, t, s.p[team]);
    __syncthreads();
#pragma unroll 1
    for (int i = warp_id(); i < teams * w.n_queries; i += n_warps()) {
      const int of = i / w.n_queries, q = i % w.n_queries;
      const uint32_t c = first + static_cast<uint32_t>(of);
      if (c >= w.chunks.end) continue;
      const ChunkSum sum = softmax(s.p[of][q], c * kChunk, w.range);
      if (lane_id() == 0) s.sums[of][q] = sum;
    }
    __syncthreads();
    if (has)
      weigh_all<kKv, kQueries>(a, w, chunk, slot, t, s.p[team],
                               s.row(DecodeShared<kQueries>::kOutputs + team * kQueries, a.kv.head_dim));
    __syncthreads();
    ask(chunk + stride);
    if (w.n_blocks > 1) {
      if (has) leave_chunk<kQueries>(a, w, chunk, team, t, s);
    } else {
      const uint32_t left = w.chunks.end - first;
      join<kQueries>(a, w, left < static_cast<uint32_t>(teams) ? static_cast<int>(left) : teams, is_first,
                     first + stride >= w.chunks.end, s);
    }
  }
  if (w.n_blocks > 1 && comes_last(a.arrivals[blockIdx.x * gridDim.y + blockIdx.y], w.n_blocks, s.is_last))
    join_all<kQueries>(a, w);
}

template <int kQueries>
size_t shared_bytes(const KvView& kv, int teams) {
  return sizeof(DecodeShared<kQueries>) +
         static_cast<size_t>(DecodeShared<kQueries>::n_rows(teams) * kv.head_dim) * sizeof(float) +
         static_cast<size_t>(teams) * chunk_bytes(kv);
}

template <int kQueries>
void start(const KernelStream& stream, const AttentionArgs& a) {
  const int tiles = divide_up(a.kv.n_heads / a.kv.n_kv_heads, kQueries);
  int teams = kMaxTeams;
  while (teams > 1 && (static_cast<size_t>(teams) * chunk_bytes(a.kv) > kMaxChunkBytes ||
                       shared_bytes<kQueries>(a.kv, teams) > stream.shared.of_block))
    teams /= 2;
  const dim3 grid(static_cast<unsigned>(a.n_tiles), static_cast<unsigned>(a.kv.n_kv_heads * tiles),
                  static_cast<unsigned>(a.n_splits));
  launch(stream,
         {grid, dim3(static_cast<unsigned>(teams * kTeamThreads<kQueries>)), shared_bytes<kQueries>(a.kv, teams)},
         teams == kMaxTeams && is_usual<64>(a.kv)    ? attention_decode_kernel<DType::kF16, kQueries, 64>
         : teams == kMaxTeams && is_usual<128>(a.kv) ? attention_decode_kernel<DType::kF16, kQueries, 128>
         : a.kv.dtype == DType::kQ8_0                ? attention_decode_kernel<DType::kQ8_0, kQueries, 0>
         : a.kv.dtype == DType::kF16                 ? attention_decode_kernel<DType::kF16, kQueries, 0>
                                                     : attention_decode_kernel<DType::kF32, kQueries, 0>,
         a);
}

}  // namespace

bool has_room_for_decodes(const KernelStream& stream, const KvView& kv) {
  return shared_bytes<kMaxQueries>(kv, 1) <= stream.shared.of_block;
}

void attention_of_decodes(const KernelStream& stream, const AttentionArgs& args) {
  switch (args.heads_per_tile) {
    case 1:
      return start<1>(stream, args);
    case 2:
      return start<2>(stream, args);
    case 4:
      return start<4>(stream, args);
    default:
      return start<kMaxQueries>(stream, args);
  }
}

}  // namespace llorch::cuda
