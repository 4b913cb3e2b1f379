// Attention of a tile of queries over the pages of one sequence and KV head, in chunks of 64 positions. Written once
// over sixteen lanes; included by one source file for each instruction set (see linear_kernels.h).
#pragma once

#include "backend/cpu/kernels.h"
#include "backend/cpu/row_kernels.h"

namespace llorch::cpu {
namespace {

inline constexpr int kChunk = 64;

template <typename L>
[[gnu::always_inline]] inline typename L::F load_kv(const uint16_t* p) {
  return L::load_f16(p);
}
template <typename L>
[[gnu::always_inline]] inline typename L::F load_kv(const float* p) {
  return L::load(p);
}
template <typename L>
[[gnu::always_inline]] inline typename L::F load_kv_first(const uint16_t* p, int n) {
  return L::load_f16_first(p, n);
}
template <typename L>
[[gnu::always_inline]] inline typename L::F load_kv_first(const float* p, int n) {
  return L::load_first(p, n);
}

template <typename L>
[[gnu::always_inline]] inline typename L::F load_kv(const int8_t* p) {
  return L::load_8bit(p);
}
template <typename L>
[[gnu::always_inline]] inline typename L::F load_kv_first(const int8_t* p, int n) {
  int8_t whole[16] = {};
  for (int i = 0; i < n && i < 16; ++i) whole[i] = p[i];
  return L::load_8bit(whole);
}

// One tile's walk over its positions.
template <typename L, typename Kv, int kQueries>
struct AttentionTile {
  using F = typename L::F;

  const AttentionArgs& a;
  float m[kQueries], l[kQueries];
  // Of the current chunk: [begin, end) of each query inside the chunk, scores then probabilities, softmax sums.
  int begin[kQueries], end[kQueries];
  alignas(64) float p[kQueries][kChunk];
  float chunk_m[kQueries], chunk_l[kQueries], scale_old[kQueries], scale_new[kQueries];
  const Kv *k_rows[kChunk / 16], *v_rows[kChunk / 16];
  const uint16_t *k_scales[kChunk / 16], *v_scales[kChunk / 16];  // in 8 bit

  explicit AttentionTile(const AttentionArgs& args) : a(args) {}

  void run() {
    for (int q = 0; q < kQueries; ++q) {
      m[q] = -__builtin_inff();
      l[q] = 0.0f;
      for (int d = 0; d < a.head_dim; ++d) output(q)[d] = 0.0f;
    }
    int first = a.position[0], last = 0;
    for (int q = 0; q < kQueries; ++q) {
      first = window_start(q) < first ? window_start(q) : first;
      last = a.position[q] > last ? a.position[q] : last;
    }
    for (int chunk = first / kChunk * kChunk; chunk <= last; chunk += kChunk) {
      set_ranges(chunk);
      find_rows(chunk, last);
      score();
      for (int q = 0; q < kQueries; ++q)
        if (end[q] > begin[q]) softmax(q);
      merge();
      weigh_values();
    }
    for (int q = 0; q < kQueries; ++q) {
      const F sum = L::set1(l[q]);
      for (int d = 0; d < a.head_dim; d += 16) {
        const int n = a.head_dim - d;
        L::store_first(a.y[q] + d, L::div(L::load_first(output(q) + d, n), sum), n);
      }
    }
  }

  float* output(int q) { return a.scratch + static_cast<size_t>(q) * a.head_dim; }

  int window_start(int q) const {
    const int position = a.position[q];
    return a.window != 0 && position + 1 > a.window ? position + 1 - a.window : 0;
  }

  void set_ranges(int chunk) {
    for (int q = 0; q < kQueries; ++q) {
      const int low = window_start(q) - chunk, high = a.position[q] - chunk + 1;
      begin[q] = low > 0 ? low : 0;
      end[q] = high < kChunk ? high : kChunk;
      if (begin[q] > kChunk) begin[q] = kChunk;
    }
  }

  // Where each 16 positions of the chunk lie; a page holds at least as many.
  void find_rows(int chunk, int last) {
    for (int i = 0; i < kChunk / 16 && chunk + i * 16 <= last; ++i) {
      const int position = chunk + i * 16, in_page = position & ((1 << a.page_shift) - 1);
      const size_t page = a.pages[position >> a.page_shift] * a.page_stride;
      k_rows[i] = reinterpret_cast<const Kv*>(a.k + page) + static_cast<size_t>(in_page) * a.head_dim;
      v_rows[i] = reinterpret_cast<const Kv*>(a.v + page) + static_cast<size_t>(in_page) * a.head_dim;
      if constexpr (sizeof(Kv) == 1) {
        const size_t scales = page + (static_cast<size_t>(a.head_dim) << a.page_shift);
        k_scales[i] = reinterpret_cast<const uint16_t*>(a.k + scales) + static_cast<size_t>(in_page) * n_blocks();
        v_scales[i] = reinterpret_cast<const uint16_t*>(a.v + scales) + static_cast<size_t>(in_page) * n_blocks();
      }
    }
  }

  // Sixteen positions at a time: one lane each, d ascending. Lanes beyond a query's range hold garbage and are not
  // read.
  void score() {
    int last = 0;
    for (int q = 0; q < kQueries; ++q) last = end[q] > last ? end[q] : last;
    for (int offset = 0; offset < last; offset += 16) {
      const Kv* k = k_rows[offset / 16];
      F sum[kQueries];
      for (int q = 0; q < kQueries; ++q) sum[q] = L::zero();
      for (int d = 0; d < a.head_dim; ++d) {
        F key = load_kv<L>(k + d * 16);
        if constexpr (sizeof(Kv) == 1) key = L::mul(key, L::load_f16(k_scales[offset / 16] + d / kQuantBlock * 16));
        for (int q = 0; q < kQueries; ++q) sum[q] = L::fma(L::set1(a.q[q][d]), key, sum[q]);
      }
      for (int q = 0; q < kQueries; ++q) L::store(p[q] + offset, L::mul(sum[q], L::set1(a.scale)));
    }
  }

  void softmax(int q) {
    const F lowest = L::set1(-__builtin_inff());
    F largest = lowest;
    for (int i = begin[q] / 16 * 16; i < end[q]; i += 16)
      largest = L::max(in_range(L::load(p[q] + i), i, q, lowest), largest);
    chunk_m[q] = L::reduce_max(largest);
    const F shift = L::set1(chunk_m[q]);
    F partial[2] = {L::zero(), L::zero()};
    for (int i = begin[q] / 16 * 16; i < end[q]; i += 16) {
      const F value = in_range(exp_lanes<L>(L::sub(L::load(p[q] + i), shift)), i, q, L::zero());
      L::store(p[q] + i, value);
      F& lane = partial[i / 16 % 2];
      lane = L::add(lane, value);
    }
    float sums[16];
    L::store(sums, L::add(partial[0], partial[1]));
    for (int width = 8; width > 0; width /= 2)
      for (int i = 0; i < width; ++i) sums[i] += sums[i + width];
    chunk_l[q] = sums[0];
  }

  // Lanes of positions [i, i + 16) outside the query's range become `other`.
  F in_range(F value, int i, int q, F other) const {
    if (i < begin[q]) value = L::select_first(other, value, begin[q] - i);
    if (i + 16 > end[q]) value = L::select_first(value, other, end[q] - i);
    return value;
  }

  // m' = max(m, chunk m), l = fma(l, e^(m - m'), chunk l * e^(chunk m - m')); all exps in one vector.
  void merge() {
    alignas(64) float shift[16] = {}, scale[16];
    for (int q = 0; q < kQueries; ++q) {
      if (end[q] <= begin[q]) continue;
      const float merged = chunk_m[q] > m[q] ? chunk_m[q] : m[q];
      shift[q] = m[q] - merged;
      shift[8 + q] = chunk_m[q] - merged;
      m[q] = merged;
    }
    L::store(scale, exp_lanes<L>(L::load(shift)));
    for (int q = 0; q < kQueries; ++q) {
      if (end[q] <= begin[q]) continue;
      scale_old[q] = scale[q];
      scale_new[q] = scale[8 + q];
      l[q] = __builtin_fmaf(l[q], scale_old[q], chunk_l[q] * scale_new[q]);
    }
  }

  // o = fma(o, e^(m - m'), chunk o * e^(chunk m - m'))
  void weigh_values() {
    int common_begin = 0, common_end = kChunk;
    for (int q = 0; q < kQueries; ++q) {
      common_begin = begin[q] > common_begin ? begin[q] : common_begin;
      common_end = end[q] < common_end ? end[q] : common_end;
    }
    if (common_end < common_begin) common_end = common_begin = kChunk;  // no position is common: all go one by one
    for (int d = 0; d < a.head_dim; d += 16) {
      F sum[kQueries];
      for (int q = 0; q < kQueries; ++q) {
        sum[q] = L::zero();
        const int stop = common_begin < end[q] ? common_begin : end[q];
        for (int i = begin[q]; i < stop; ++i) sum[q] = L::fma(L::set1(p[q][i]), value(i, d), sum[q]);
      }
      for (int i = common_begin; i < common_end; ++i) {
        const F v = value(i, d);
        for (int q = 0; q < kQueries; ++q) sum[q] = L::fma(L::set1(p[q][i]), v, sum[q]);
      }
      for (int q = 0; q < kQueries; ++q) {
        if (end[q] <= begin[q]) continue;
        const int start = common_end > begin[q] ? common_end : begin[q];
        for (int i = start; i < end[q]; ++i) sum[q] = L::fma(L::set1(p[q][i]), value(i, d), sum[q]);
        const int n = a.head_dim - d;
        float* o = output(q) + d;
        const F merged = L::fma(L::load_first(o, n), L::set1(scale_old[q]), L::mul(sum[q], L::set1(scale_new[q])));
        L::store_first(o, merged, n);
      }
    }
  }

  // Sixteen elements from d on of the value at position i of the chunk.
  [[gnu::always_inline]] F value(int i, int d) const {
    const Kv* v = v_rows[i / 16] + static_cast<size_t>(i % 16) * a.head_dim + d;
    const F elements = a.head_dim - d >= 16 ? load_kv<L>(v) : load_kv_first<L>(v, a.head_dim - d);
    if constexpr (sizeof(Kv) > 1) return elements;
    return L::mul(elements, L::set1_f16(v_scales[i / 16][i % 16 * n_blocks() + d / kQuantBlock]));
  }

  int n_blocks() const { return (a.head_dim + kQuantBlock - 1) / kQuantBlock; }
};

template <typename L, typename Kv>
void attention(const AttentionArgs& a) {
  switch (a.n_queries) {
    case 8:
      return AttentionTile<L, Kv, 8>(a).run();
    case 4:
      return AttentionTile<L, Kv, 4>(a).run();
    case 3:
      return AttentionTile<L, Kv, 3>(a).run();
    case 2:
      return AttentionTile<L, Kv, 2>(a).run();
    default:
      return AttentionTile<L, Kv, 1>(a).run();
  }
}

}  // namespace
}  // namespace llorch::cpu
