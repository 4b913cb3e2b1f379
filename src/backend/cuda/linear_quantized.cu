// Linear with block-quantized weights: activations are int16 blocks of 32 in shared memory, weights go through it a
// segment at a time.
#include "backend/cuda/linear.h"

namespace llorch::cuda {
namespace {

// Of a segment of a row of `cols`; 0 or less behind the row's end.
__device__ inline int blocks_of(int cols, int segment) {
  const int left = cols / kQuantBlock - segment * kBlocksPerSegment;
  return left < kBlocksPerSegment ? left : kBlocksPerSegment;
}

// One row of a segment as int16 blocks.
struct PackedSegment {
  int16_t q[kSegment];
  float d[kBlocksPerSegment];
  int32_t sums[kBlocksPerSegment];
};

// A warp's segment of weights in shared memory: as on the device, without the other segments.
template <typename Codes>
struct SegmentBytes {
  static constexpr uint32_t kHighs = kBlocksPerSegment * Codes::kUnits * kGroup * sizeof(uint4);
  static constexpr uint32_t kScales = kHighs + Codes::kHighUnits * kGroup * sizeof(uint4);
  static constexpr uint32_t kD = kScales + Codes::Scales::kUnits * kGroup * sizeof(uint4);
  static constexpr uint32_t kAll = kD + (Codes::Scales::kHasD ? kGroup * sizeof(uint16_t) : 0);

  __device__ static SegmentPlace place(uint32_t slot) {
    const auto at = [&](uint32_t byte) { return shared_at<uint4>(slot + byte) + lane_id(); };
    return {at(0), at(kHighs), at(kScales), shared_at<uint16_t>(slot + kD) + lane_id()};
  }
};

// Asks for the n_blocks blocks of a segment of a row: one group of copies.
template <typename Codes>
__device__ void ask_for(const MatrixView& w, int row, int segment, int n_blocks, uint32_t slot) {
  if (n_blocks > 0) {
    const SegmentPlace from = segment_place<Codes>(w, row / kGroup, segment, row % kGroup),
                       to = SegmentBytes<Codes>::place(slot);
#pragma unroll
    for (int i = 0; i < kBlocksPerSegment * Codes::kUnits; ++i)
      if (i < n_blocks * Codes::kUnits) copy_16(to.units + i * kGroup, from.units + i * kGroup);
#pragma unroll
    for (int i = 0; i < Codes::kHighUnits; ++i) copy_16(to.highs + i * kGroup, from.highs + i * kGroup);
#pragma unroll
    for (int i = 0; i < Codes::Scales::kUnits; ++i) copy_16(to.scales + i * kGroup, from.scales + i * kGroup);
    if constexpr (Codes::Scales::kHasD)  // two lanes' at once
      if (lane_id() % 2 == 0) copy_4(to.d, from.d);
  }
  commit_copies();
}

// A warp's part of a row of a segment.
struct PackedRow {
  uint4 q = {};
  float d = 0.0f;
  int32_t sum = 0;

  __device__ void load(const PackedRows& from, size_t at, int n_blocks) {
    if (lane_id() * 8 < n_blocks * kQuantBlock) q = reinterpret_cast<const uint4*>(from.q + at)[lane_id()];
    if (lane_id() >= n_blocks) return;
    d = from.d[at / kQuantBlock + lane_id()];
    sum = from.sums[at / kQuantBlock + lane_id()];
  }
  __device__ void store(int n_blocks, PackedSegment& to) const {
    if (lane_id() * 8 < n_blocks * kQuantBlock) reinterpret_cast<uint4*>(to.q)[lane_id()] = q;
    if (lane_id() >= n_blocks) return;
    to.d[lane_id()] = d;
    to.sums[lane_id()] = sum;
  }
};

// What the warp's teams read: the rows of their segments, from `segment` on, where they were packed before. Several are
// asked for before the first is stored: the compiler keeps the order of loads and stores.
template <int kRows>
__device__ void copy_packed(const LinearArgs& a, int segment, PackedSegment* xs) {
  constexpr int kAtOnce = kRows <= 2 ? 2 : 4;
  const int n = kRows * teams_of_warp(a);
  const auto blocks = [&](int i) { return i < n ? blocks_of(a.x.cols, segment + i / kRows) : 0; };
#pragma unroll 1
  for (int first = 0; first < n; first += kAtOnce) {
    PackedRow rows[kAtOnce];
#pragma unroll
    for (int i = first; i < first + kAtOnce; ++i)
      rows[i - first].load(
          a.packed, size_t(clamped_row<kRows>(a, i % kRows)) * a.x.cols + (segment + i / kRows) * kSegment, blocks(i));
#pragma unroll
    for (int i = first; i < first + kAtOnce; ++i)
      if (blocks(i) > 0) rows[i - first].store(blocks(i), xs[i]);
  }
}

// The same made here.
template <int kRows>
__device__ void pack(const TileInput<kRows>& input, int segment, PackedSegment* xs) {
#pragma unroll 1
  for (int i = 0; i < kRows * teams_of_warp(input.a); ++i) {
    const int n_blocks = blocks_of(input.a.x.cols, segment + i / kRows);
    if (n_blocks <= 0) continue;
    LaneValues values;
    input.get(i % kRows, (segment + i / kRows) * kSegment, n_blocks * kQuantBlock, values);
    const Quantized v = quantize(values);
#pragma unroll
    for (int b = 0; b < kBlocksPerSegment; ++b) xs[i].q[b * kQuantBlock + lane_id()] = static_cast<int16_t>(v.q[b]);
    if (lane_id() < kBlocksPerSegment) {
      xs[i].d[lane_id()] = v.d;
      xs[i].sums[lane_id()] = v.sum;
    }
  }
}

template <int kRows>
__device__ void stage(const TileInput<kRows>& input, int segment, PackedSegment* xs) {
  if constexpr (TileInput<kRows>::kMakes)
    if (input.a.packed.q == nullptr) return pack<kRows>(input, segment, xs);
  copy_packed<kRows>(input.a, segment, xs);
}

// The exact sum of products of 4 * kWords codes; x: as many int16 in shared memory.
template <int kWords>
__device__ int dot(const int* words, const int16_t* x) {
  const int4* pairs = reinterpret_cast<const int4*>(x);
  int first = 0, second = 0;  // two, so that one does not wait for the other
#pragma unroll
  for (int i = 0; i < kWords; i += 2) {
    const int4 p = pairs[i / 2];
    first = __dp2a_lo(p.x, words[i], first);
    second = __dp2a_hi(p.y, words[i], second);
    first = __dp2a_lo(p.z, words[i + 1], first);
    second = __dp2a_hi(p.w, words[i + 1], second);
  }
  return first + second;
}

// Adds block b of a segment to each row's sum.
template <typename Codes, int kRows>
__device__ void add_block(const SegmentPlace& w, const typename Codes::Scales& scales, int b, const PackedSegment* xs,
                          float (&acc)[kRows]) {
  constexpr int kGroups = kQuantBlock / Codes::Block::kScaleGroup, kWords = kWordsPerBlock / kGroups;
  static_assert(kGroups == 1 || Codes::kOffset == 0, "sums of activations are those of a block");
  uint4 units[Codes::kUnits], highs[Codes::kHighUnits > 0 ? Codes::kHighUnits : 1];
#pragma unroll
  for (int i = 0; i < Codes::kUnits; ++i) units[i] = w.units[(b * Codes::kUnits + i) * kGroup];
#pragma unroll
  for (int i = 0; i < Codes::kHighUnits; ++i) highs[i] = w.highs[i * kGroup];
  int words[kWordsPerBlock];
  Codes::words(units, highs, b, words);
  float scale[kGroups];
#pragma unroll
  for (int g = 0; g < kGroups; ++g) scale[g] = scales.scale(b * kGroups + g);
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    const PackedSegment& x = xs[r];
#pragma unroll
    for (int g = 0; g < kGroups; ++g) {
      int sum = dot<kWords>(words + g * kWords, x.q + b * kQuantBlock + g * Codes::Block::kScaleGroup);
      if constexpr (Codes::kShift != 0) sum >>= Codes::kShift;
      if constexpr (Codes::kOffset != 0) sum -= Codes::kOffset * x.sums[b];
      acc[r] = __fmaf_rn(__int2float_rn(sum), __fmul_rn(scale[g], x.d[b]), acc[r]);
    }
    if constexpr (Codes::Block::kHasMinimum)
      acc[r] = __fmaf_rn(__fmul_rn(scales.minimum(b), x.d[b]), __int2float_rn(x.sums[b]), acc[r]);
  }
}

// Up to two rows' blocks go four at a time without a branch, so that the loads of one go ahead of the sums of another;
// more rows have enough to do beside a load, and not the registers.
template <typename Codes, int kRows>
__device__ void add_segment(uint32_t slot, int n_blocks, const PackedSegment* xs, float (&acc)[kRows]) {
  const SegmentPlace w = SegmentBytes<Codes>::place(slot);
  uint4 units[Codes::Scales::kUnits];
#pragma unroll
  for (int i = 0; i < Codes::Scales::kUnits; ++i) units[i] = w.scales[i * kGroup];
  uint16_t d = 0;
  if constexpr (Codes::Scales::kHasD) d = *w.d;
  const typename Codes::Scales scales(units, d);
  constexpr int kAtOnce = kRows <= 2 ? 4 : 1;
#pragma unroll
  for (int first = 0; first < kBlocksPerSegment; first += kAtOnce) {
    if (first + kAtOnce <= n_blocks) {
#pragma unroll
      for (int b = first; b < first + kAtOnce; ++b) add_block<Codes, kRows>(w, scales, b, xs, acc);
    } else if constexpr (Codes::Block::kElements < kSegment) {  // superblocks are whole
#pragma unroll
      for (int b = first; b < first + kAtOnce - 1; ++b)
        if (b < n_blocks) add_block<Codes, kRows>(w, scales, b, xs, acc);
    }
  }
}

// What a warp asks for, in order: its segments of the block's first task, of the next, ...
template <typename Codes, int kRows>
struct SegmentStream {
  const LinearArgs& a;
  const Team team;
  const uint32_t ring;
  const int n_tasks;
  int task = 0, segment = team.index, n_asked = 0;

  __device__ uint32_t slot(int visit) const {
    return ring + static_cast<uint32_t>(a.n_slots == 1 ? 0 : visit % 2) * SegmentBytes<Codes>::kAll;
  }
  // One group of copies; none behind the last segment.
  __device__ void ask() {
    if (task >= n_tasks) return commit_copies();
    const Place place = find_place<kRows>(a, task);
    const MatrixView& w = place.part.w;
    ask_for<Codes>(w, place.column + team.lane, segment, blocks_of(w.cols, segment), slot(n_asked++));
    segment += team.n;
    if (segment - team.of_warp < w.segments) return;
    segment = team.index;
    ++task;
  }
};

template <typename Codes, int kRows>
__global__ void __launch_bounds__(kLinearThreads<Codes, kRows>)
    linear_quantized_kernel(const __grid_constant__ LinearArgs a) {
  constexpr uint32_t kInputBytes = kRows * sizeof(PackedSegment);
  const auto ring_bytes = static_cast<uint32_t>(a.n_slots) * SegmentBytes<Codes>::kAll;
  const LinearShared<kRows> shared(a, n_warps(), kInputBytes, ring_bytes);
  const TileInput<kRows> input{a, shared};
  const Team team(a);
  SegmentStream<Codes, kRows> stream{a, team, shared.warps + static_cast<uint32_t>(warp_id()) * ring_bytes,
                                     count_tasks(a)};
  input.ask_for_norm();
  stream.ask();
  if (a.n_slots > 1) stream.ask();
  wait_for_rows(a);
  if (a.n_slots > 1)
    wait_for_copies<2>();
  else
    wait_for_copies<1>();
  input.begin();
  if (a.next == NextBegins::kAfterInput) let_next_begin();
  int visit = 0;
  for (int task = 0; task < stream.n_tasks; ++task) {
    const Place place = find_place<kRows>(a, task);
    const float first_residual = team.index < kRows ? residual(a, place, team.index) : 0.0f;
    for (int segment = team.index; segment - team.of_warp < place.part.w.segments; segment += team.n, ++visit) {
      const int at = a.keeps_input ? segment : team.index;
      const auto* xs = shared_at<PackedSegment>(shared.inputs) + at * kRows;
      if (task == 0 || !a.keeps_input)
        stage<kRows>(input, segment - team.of_warp,
                     shared_at<PackedSegment>(shared.inputs) + (at - team.of_warp) * kRows);
      if (a.n_slots > 1)
        wait_for_copies<1>();
      else
        wait_for_copies<0>();
      __syncwarp();
      float acc[kRows];
#pragma unroll
      for (int r = 0; r < kRows; ++r) acc[r] = 0.0f;
      add_segment<Codes, kRows>(stream.slot(visit), blocks_of(place.part.w.cols, segment), xs, acc);
      leave<kRows>(a, place, task, segment, acc);
      __syncwarp();
      stream.ask();
    }
    finish<kRows>(a, shared, place, task, first_residual);
  }
  if (!a.is_first) wait_for_earlier();
}

// All segments at once if they are few; else as many warps as leave room for another block. A second slot for what
// comes behind a warp's first segments. False: not even one warp has room.
template <typename Codes, int kRows>
bool start(const KernelStream& stream, LinearArgs& a) {
  const LinearCut<Codes, kRows> cut = {kRows * sizeof(PackedSegment), [](int n_slots) {
                                         return static_cast<uint32_t>(n_slots) * SegmentBytes<Codes>::kAll;
                                       }};
  cut.choose_task(stream, a, stream.n_multiprocessors / 2);
  a.n_slots = 1;
  int warps = cut.warps(a, all_shared(stream));
  const bool at_once = warps == cut.all_warps(a) && !a.gates &&
                       (a.n_rows > kRows || all_tasks(a) <= stream.n_multiprocessors * cut.resident(stream, a, warps));
  if (!at_once) {
    a.n_slots = 2;
    warps = cut.warps(a, half_shared(stream));
  }
  if (warps == 0) {
    a.keeps_input = false;
    warps = cut.warps(a, all_shared(stream));
  }
  if (warps == 0) return false;
  launch(stream, cut.shape(stream, a, warps), linear_quantized_kernel<Codes, kRows>, a);
  return true;
}

}  // namespace

void linear_of_blocks(const KernelStream& stream, DType dtype, LinearArgs args) {
  with_codes(dtype, [&](auto codes) {
    using Codes = decltype(codes);
    if constexpr (kIsQuantized<Codes>) choose_rows(args, [&](auto rows) { return start<Codes, rows()>(stream, args); });
  });
}

void linear(const KernelStream& stream, DType dtype, LinearArgs args) {
  return is_quantized(dtype) ? linear_of_blocks(stream, dtype, args) : linear_of_floats(stream, dtype, args);
}

}  // namespace llorch::cuda
