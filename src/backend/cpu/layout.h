// Weight matrices in the CPU's own layout: groups of 16 rows side by side, so that one output is one vector lane.
//
// Float types: group g holds [cols][16] elements. Block-quantized types: the integer codes of 16 rows, and apart from
// them their scales, as quant_layout.h says. The same bytes as in the file (Q4_K and Q5_K: 2.8 and 2.3 % more), plus
// padding to a multiple of 16 rows.
#pragma once

#include <memory>
#include <span>

#include "backend/cpu/kernels.h"
#include "tensor/tensor.h"

namespace llorch::cpu {

// Zeroed, 64-byte aligned, in huge pages where the system has them (fewer TLB misses: reading at full bandwidth needs
// them). Throws std::bad_alloc.
class Buffer {
 private:
  struct Unmap {
    size_t bytes;
    void operator()(std::byte* memory) const;
  };

 public:
  Buffer() : memory_(nullptr, Unmap{0}) {}
  explicit Buffer(size_t bytes);

  std::byte* data() { return memory_.get(); }
  const std::byte* data() const { return memory_.get(); }
  size_t bytes() const { return memory_ ? memory_.get_deleter().bytes : 0; }

 private:
  std::unique_ptr<std::byte, Unmap> memory_;
};

class InterleavedMatrix {
 public:
  // Of [rows, cols] in memory that somebody else owns: bytes() zeros, 64-byte aligned, and kPrefetched bytes that may
  // be asked for behind them. fill() then interleaves.
  InterleavedMatrix(DType dtype, int64_t rows, int64_t cols, std::byte* memory);
  static size_t bytes(DType dtype, int64_t rows, int64_t cols);
  static constexpr size_t kPrefetched = 4096;

  int groups() const { return groups_; }
  DType dtype() const { return dtype_; }
  int64_t rows() const { return rows_; }
  int64_t cols() const { return cols_; }
  size_t bytes() const { return bytes(dtype_, rows_, cols_); }
  MatrixView view() const;

  // Copies groups [first, last) from a tensor of the file. Threads may fill different groups at once.
  void fill(const Tensor& tensor, int first, int last);

  // Dequantizes one row, times scale, into out[cols]: the embedding gathers from here, so that no second copy is kept.
  void read_row(int64_t row, float scale, float* out) const;

 private:
  std::byte* group(int g) { return codes_ + static_cast<size_t>(g) * stride_; }
  const std::byte* group(int g) const { return codes_ + static_cast<size_t>(g) * stride_; }
  template <typename Element>
  void fill_floats(const Tensor& tensor, int g);
  template <typename Block>
  void fill_blocks(const Tensor& tensor, int g);
  template <typename Block>
  void read_blocks(int64_t row, float* out) const;

  DType dtype_;
  int64_t rows_, cols_;
  int groups_;
  size_t stride_;        // bytes of a group's elements or codes
  size_t scale_stride_;  // bytes of a group's scale records
  std::byte* codes_;
  std::byte* scales_;
};

}  // namespace llorch::cpu
