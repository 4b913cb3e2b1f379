// Weights in pieces, on their way from the thread that opens them to those that read their bytes.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <mutex>
#include <optional>
#include <span>
#include <vector>

#include "tensor/tensor.h"

namespace llorch::cuda {

// Groups [first, first + n) of 32 rows of a matrix, or a whole vector.
struct Piece {
  size_t weight = 0;               // of the plan
  const Tensor* tensor = nullptr;  // open until the piece is read
  int32_t first_group = 0, n_groups = 0;
};

// One thread puts weights in, in the plan's order; many take pieces out.
class PieceQueue {
 public:
  explicit PieceQueue(size_t n_weights) : unread_(n_weights, 0) {}

  // All pieces of a weight.
  void put(size_t weight, std::span<const Piece> pieces) {
    const std::lock_guard lock(mutex_);
    unread_[weight] = pieces.size();
    pieces_.insert(pieces_.end(), pieces.begin(), pieces.end());
    changed_.notify_all();
  }
  void end() { set(ended_); }
  // Somebody has failed: nobody waits any more.
  void abandon() { set(abandoned_); }

  // Waits. Nothing: all were taken, or the work is abandoned.
  std::optional<Piece> take() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return abandoned_ || ended_ || !pieces_.empty(); });
    if (abandoned_ || pieces_.empty()) return std::nullopt;
    const Piece piece = pieces_.front();
    pieces_.pop_front();
    return piece;
  }
  // Nobody looks at its tensor any more.
  void was_read(const Piece& piece) {
    const std::lock_guard lock(mutex_);
    if (--unread_[piece.weight] == 0) read_.notify_all();
  }
  // Waits until all pieces of a weight were read; false if the work is abandoned.
  bool wait_until_read(size_t weight) {
    std::unique_lock lock(mutex_);
    read_.wait(lock, [&] { return abandoned_ || unread_[weight] == 0; });
    return !abandoned_;
  }

 private:
  void set(bool& what) {
    const std::lock_guard lock(mutex_);
    what = true;
    changed_.notify_all();
    read_.notify_all();
  }

  std::mutex mutex_;
  std::condition_variable changed_, read_;
  std::deque<Piece> pieces_;
  std::vector<size_t> unread_;  // [weights]
  bool ended_ = false, abandoned_ = false;
};

}  // namespace llorch::cuda
