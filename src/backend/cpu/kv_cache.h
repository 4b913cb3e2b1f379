// The CPU's KV pages: one allocation, [layer][page][kv head]{ keys [page_size / 16][head_dim][16], values [page_size]
// [head_dim] }. Keys lie with 16 positions side by side, so that one position is one vector lane of the scores. In 8
// bit, f16 scales stand behind the keys, [page_size / 16][blocks of a head][16], and behind the values,
// [page_size][blocks].
#pragma once

#include <bit>

#include "backend/backend.h"
#include "backend/cpu/layout.h"

namespace llorch::cpu {

class KvCache {
 public:
  KvCache(const Plan& plan, const KvShape& kv)
      : kv_(kv),
        head_dim_(plan.heads.head_dim),
        element_(kv.dtype == DType::kQ8_0 ? 1 : block_bytes(kv.dtype)),
        half_(size_t{kv.page_size} * kv_head_bytes(plan.heads.head_dim, kv.dtype)),
        page_(2 * half_ * plan.heads.n_kv_heads),
        memory_(size_t{plan.n_layers} * kv.n_pages * page_) {}

  // Keys of a page of a layer from `head` on; the next head is head_stride() further, the next page page_stride().
  std::byte* keys(uint32_t layer, uint32_t page, uint32_t head) {
    return memory_.data() + (size_t{layer} * kv_.n_pages + page) * page_ + head * head_stride();
  }
  std::byte* values(uint32_t layer, uint32_t page, uint32_t head) { return keys(layer, page, head) + half_; }
  size_t head_stride() const { return 2 * half_; }
  size_t page_stride() const { return page_; }

  // Where position `in_page` of a page starts among its keys (element d at d * 16) and values.
  size_t key_offset(uint32_t in_page) const { return among_lanes(in_page, head_dim_) * element_; }
  size_t value_offset(uint32_t in_page) const { return size_t{in_page} * head_dim_ * element_; }
  // In 8 bit: where the scales of that position start (of block b 16 halves further for a key, one for a value).
  size_t key_scale_offset(uint32_t in_page) const {
    return scales() + among_lanes(in_page, n_blocks()) * sizeof(uint16_t);
  }
  size_t value_scale_offset(uint32_t in_page) const {
    return scales() + size_t{in_page} * n_blocks() * sizeof(uint16_t);
  }

  int page_shift() const { return std::countr_zero(kv_.page_size); }
  size_t bytes() const { return memory_.bytes(); }
  void poison() { std::fill_n(memory_.data(), memory_.bytes(), std::byte{0xff}); }  // NaN, the scales of 8 bit too

 private:
  // Place of a position in [page_size / 16][n][16].
  static size_t among_lanes(uint32_t in_page, size_t n) { return size_t{in_page} / 16 * 16 * n + in_page % 16; }
  size_t scales() const { return size_t{kv_.page_size} * head_dim_; }
  size_t n_blocks() const { return (head_dim_ + kKvBlock - 1) / kKvBlock; }

  KvShape kv_;
  size_t head_dim_;
  size_t element_;  // bytes
  size_t half_;     // bytes of the keys (or values) of one head in one page
  size_t page_;
  Buffer memory_;
};

}  // namespace llorch::cpu
