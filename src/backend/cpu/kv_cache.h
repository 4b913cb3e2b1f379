// The CPU's KV pages: one allocation, [layer][page][kv head]{ keys [page_size / 16][head_dim][16], values [page_size]
// [head_dim] }. Keys lie with 16 positions side by side, so that one position is one vector lane of the scores.
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
        half_(size_t{kv.page_size} * head_dim_ * block_bytes(kv.dtype)),
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
  size_t key_offset(uint32_t in_page) const {
    return (size_t{in_page} / 16 * 16 * head_dim_ + in_page % 16) * block_bytes(kv_.dtype);
  }
  size_t value_offset(uint32_t in_page) const { return size_t{in_page} * head_dim_ * block_bytes(kv_.dtype); }

  int page_shift() const { return std::countr_zero(kv_.page_size); }
  size_t bytes() const { return memory_.bytes(); }
  void poison() { std::fill_n(memory_.data(), memory_.bytes(), std::byte{0xff}); }  // NaN in f16 and f32

 private:
  KvShape kv_;
  size_t head_dim_;
  size_t half_;  // bytes of the keys (or values) of one head in one page
  size_t page_;
  Buffer memory_;
};

}  // namespace llorch::cpu
