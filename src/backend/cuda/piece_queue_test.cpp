// Pieces of weights between threads: each is read once, a weight is closed when all of it was read, nobody is left
// waiting.
#include "backend/cuda/piece_queue.h"

#include <gtest/gtest.h>

#include <future>

namespace llorch::cuda {
namespace {

constexpr size_t kWeights = 50, kPieces = 7, kReaders = 4;

std::vector<Piece> pieces_of(size_t weight) {
  std::vector<Piece> pieces;
  for (size_t i = 0; i < kPieces; ++i) pieces.push_back({weight, nullptr, static_cast<int32_t>(i), 1});
  return pieces;
}

TEST(PieceQueue, EachPieceIsReadOnceAndAWeightEndsWithItsLast) {
  PieceQueue queue(kWeights);
  std::vector<int> reads(kWeights * kPieces, 0);  // each written by one reader, looked at when its weight was read
  std::vector<std::future<void>> readers;
  for (size_t r = 0; r < kReaders; ++r)
    readers.push_back(std::async(std::launch::async, [&] {
      while (const auto piece = queue.take()) {
        ++reads[piece->weight * kPieces + static_cast<size_t>(piece->first_group)];
        queue.was_read(*piece);
      }
    }));
  for (size_t w = 0; w < kWeights; ++w) {
    queue.put(w, pieces_of(w));
    if (w == 0) continue;
    EXPECT_TRUE(queue.wait_until_read(w - 1));  // one weight behind: two are on their way
    for (size_t i = 0; i < kPieces; ++i) EXPECT_EQ(reads[(w - 1) * kPieces + i], 1);
  }
  queue.end();
  EXPECT_TRUE(queue.wait_until_read(kWeights - 1));
  for (auto& reader : readers) reader.get();
  EXPECT_EQ(reads, std::vector<int>(reads.size(), 1));
}

TEST(PieceQueue, WhatIsAbandonedLetsEverybodyGo) {
  PieceQueue queue(2);
  std::vector<std::future<bool>> waiting;
  for (size_t r = 0; r < kReaders; ++r)
    waiting.push_back(std::async(std::launch::async, [&] { return queue.take().has_value(); }));
  queue.abandon();
  for (auto& reader : waiting) EXPECT_FALSE(reader.get());
  queue.put(1, pieces_of(1));  // comes too late, and nobody reads it
  EXPECT_FALSE(queue.take().has_value());
  EXPECT_FALSE(queue.wait_until_read(1));
}

TEST(PieceQueue, TheEndComesAfterWhatIsThere) {
  PieceQueue queue(1);
  queue.put(0, pieces_of(0));
  queue.end();
  for (size_t i = 0; i < kPieces; ++i) EXPECT_EQ(queue.take()->first_group, static_cast<int32_t>(i));
  EXPECT_FALSE(queue.take().has_value());
}

}  // namespace
}  // namespace llorch::cuda
