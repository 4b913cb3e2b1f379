// Which KV page is whose: a free list. Knows page ids, not bytes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/error.h"

namespace llorch {

// Not thread-safe: belongs to the engine thread.
class PagePool {
 public:
  explicit PagePool(uint32_t n_pages) : references_(n_pages, 0) {
    free_.reserve(n_pages);
    for (uint32_t page = n_pages; page > 0; --page) free_.push_back(page - 1);
  }

  uint32_t n_free() const { return static_cast<uint32_t>(free_.size()); }
  uint32_t n_total() const { return static_cast<uint32_t>(references_.size()); }

  // Appends n pages to a page table, or leaves it alone and returns false. Contents are whatever the last owner left.
  bool take(uint32_t n, std::vector<uint32_t>& pages) {
    if (n > n_free()) return false;
    for (uint32_t i = 0; i < n; ++i) {
      references_[free_.back()] = 1;
      pages.push_back(free_.back());
      free_.pop_back();
    }
    return true;
  }

  // Gives back a whole page table and empties it. Throws BugError if a page is not in use.
  void give_back(std::vector<uint32_t>& pages) {
    for (size_t i = pages.size(); i > 0; --i) {
      const uint32_t page = pages[i - 1];
      LLORCH_CHECK(page < n_total(), "page {} of {}", page, n_total());
      LLORCH_CHECK(references_[page] > 0, "page {} is freed twice", page);
      if (--references_[page] == 0) free_.push_back(page);
    }
    pages.clear();
  }

 private:
  std::vector<uint32_t> references_;  // [n_pages]; 0: free. Above 1 once sequences share pages of a common prefix
  std::vector<uint32_t> free_;        // last in, first out: warm pages are used again first
};

}  // namespace llorch
