#include "backend/cpu/layout.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstring>

#include "base/error.h"
#include "tensor/blocks.h"

namespace llorch::cpu {
namespace {

constexpr size_t kHugePage = size_t{2} << 20;

// Bytes of one group's elements or codes for `cols` columns.
size_t group_bytes(DType dtype, int64_t cols) {
  const auto n = static_cast<size_t>(cols) * kGroup;
  switch (dtype) {
    case DType::kF32:
      return n * 4;
    case DType::kF16:
    case DType::kBF16:
      return n * 2;
    case DType::kQ8_0:
      return n;
    case DType::kQ4_0:
    case DType::kQ4_1:
      return n / 2;
  }
  return 0;
}

// Element k (0..31) of row r of a group stands at a fixed place among the codes of its block: as pairs of int8, or as
// nibbles of 32-bit words (linear_kernels.h, CodesQ8 and CodesQ4). store_codes() writes all of a row's, code() reads
// one.

void store_codes(const BlockQ8_0& block, int r, std::byte* codes) {
  for (int p = 0; p < kPairs; ++p) std::memcpy(codes + p * 2 * kGroup + 2 * r, block.qs + 2 * p, 2);
}

int code(const BlockQ8_0*, const std::byte* codes, int r, int k) {
  return static_cast<int8_t>(codes[k / 2 * 2 * kGroup + 2 * r + k % 2]);
}

// The low nibbles of 8 bytes as one word: those of even bytes in its low half, of odd bytes in its high half.
uint32_t pack_nibbles(uint64_t bytes) {
  const auto gather = [](uint64_t x) {  // one nibble in each 16 bits
    x &= 0x000f000f000f000full;
    return static_cast<uint32_t>((x | x >> 12 | x >> 24 | x >> 36) & 0xffff);
  };
  return gather(bytes) | gather(bytes >> 8) << 16;
}

template <typename Block>  // BlockQ4_0, BlockQ4_1: codes are stored unsigned, as in the file
void store_codes(const Block& block, int r, std::byte* codes) {
  for (int half = 0; half < 2; ++half) {
    uint64_t bytes;
    std::memcpy(&bytes, block.qs + 8 * half, 8);
    const uint32_t low = pack_nibbles(bytes), high = pack_nibbles(bytes >> 4);
    std::memcpy(codes + (half * kGroup + r) * 4, &low, 4);         // elements 8 * half ...
    std::memcpy(codes + ((half + 2) * kGroup + r) * 4, &high, 4);  // elements 16 + 8 * half ...
  }
}

int nibble(const std::byte* codes, int r, int k) {
  uint32_t word;
  std::memcpy(&word, codes + (k / 8 * kGroup + r) * 4, 4);
  return static_cast<int>(word >> (k % 2 * 16 + k % 8 / 2 * 4)) & 15;
}
int code(const BlockQ4_0*, const std::byte* codes, int r, int k) { return nibble(codes, r, k) - 8; }
int code(const BlockQ4_1*, const std::byte* codes, int r, int k) { return nibble(codes, r, k); }

}  // namespace

Buffer::Buffer(size_t bytes) : Buffer() {
  if (bytes == 0) return;
  // One huge page more than asked for, so that an aligned start exists; what is cut off is given back.
  const size_t rounded = (bytes + 4095) / 4096 * 4096;
  const bool huge = rounded >= kHugePage;
  const size_t mapped = huge ? rounded + kHugePage : rounded;
  void* memory = mmap(nullptr, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  auto* start = static_cast<std::byte*>(memory);
  if (huge) {
    const auto address = reinterpret_cast<uintptr_t>(start);
    const size_t skip = (kHugePage - address % kHugePage) % kHugePage;
    if (skip > 0) munmap(start, skip);
    munmap(start + skip + rounded, mapped - skip - rounded);
    start += skip;
#ifdef MADV_HUGEPAGE
    madvise(start, rounded / kHugePage * kHugePage, MADV_HUGEPAGE);  // a hint: without it only slower
#endif
  }
  memory_ = std::unique_ptr<std::byte, Unmap>(start, Unmap{rounded});
}

void Buffer::Unmap::operator()(std::byte* memory) const { munmap(memory, bytes); }

InterleavedMatrix::InterleavedMatrix(DType dtype, int64_t rows, int64_t cols)
    : dtype_(dtype),
      rows_(rows),
      cols_(cols),
      groups_(static_cast<int>((rows + kGroup - 1) / kGroup)),
      stride_((group_bytes(dtype, cols) + 63) / 64 * 64),
      codes_(static_cast<size_t>(groups_) * stride_ + 4096),  // prefetches may run past the end
      scales_(is_quantized(dtype) ? static_cast<size_t>(groups_) * static_cast<size_t>(cols / kQuantBlock) * kGroup *
                                        2 * (dtype == DType::kQ4_1 ? 2 : 1)
                                  : 0) {}

uint16_t* InterleavedMatrix::scale(int g, bool minimum) {
  const size_t per_group = static_cast<size_t>(cols_ / kQuantBlock) * kGroup;
  return reinterpret_cast<uint16_t*>(scales_.data()) +
         (static_cast<size_t>(g) + (minimum ? static_cast<size_t>(groups_) : 0)) * per_group;
}

MatrixView InterleavedMatrix::view() const {
  auto* self = const_cast<InterleavedMatrix*>(this);  // scale() computes an address only
  MatrixView v{.data = codes_.data(), .data_stride = stride_};
  v.rows = static_cast<int32_t>(rows_);
  v.cols = static_cast<int32_t>(cols_);
  if (is_quantized(dtype_)) v.scales = self->scale(0, false);
  if (dtype_ == DType::kQ4_1) v.minimums = self->scale(0, true);
  return v;
}

template <typename Element>
void InterleavedMatrix::fill_floats(const Tensor& tensor, int g) {
  auto* out = reinterpret_cast<Element*>(group(g));
  const int n = static_cast<int>(std::min<int64_t>(kGroup, rows_ - int64_t{g} * kGroup));
  const auto cols = static_cast<size_t>(cols_);
  const std::byte* in = tensor.bytes.data() + static_cast<size_t>(g) * kGroup * cols * sizeof(Element);
  constexpr size_t kStrip = 64;  // columns at a time: 16 short runs in, one long run out
  Element strip[kGroup][kStrip] = {};
  for (size_t k = 0; k < cols; k += kStrip) {
    const size_t width = std::min(kStrip, cols - k);
    for (int r = 0; r < n; ++r)
      std::memcpy(strip[r], in + (static_cast<size_t>(r) * cols + k) * sizeof(Element), width * sizeof(Element));
    for (size_t i = 0; i < width; ++i)
      for (int r = 0; r < kGroup; ++r) out[(k + i) * kGroup + static_cast<size_t>(r)] = strip[r][i];
  }
}

template <typename Block>
void InterleavedMatrix::fill_blocks(const Tensor& tensor, int g) {
  const auto n_blocks = static_cast<size_t>(cols_ / Block::kElements);
  const int n = static_cast<int>(std::min<int64_t>(kGroup, rows_ - int64_t{g} * kGroup));
  const size_t code_bytes = group_bytes(dtype_, Block::kElements);
  uint16_t* scales = scale(g, false);
  for (int r = 0; r < n; ++r) {
    const size_t row = static_cast<size_t>(g) * kGroup + static_cast<size_t>(r);
    const std::byte* in = tensor.bytes.data() + row * n_blocks * sizeof(Block);
    for (size_t b = 0; b < n_blocks; ++b) {
      Block block;
      std::memcpy(&block, in + b * sizeof(Block), sizeof(Block));
      store_codes(block, r, group(g) + b * code_bytes);
      scales[b * kGroup + static_cast<size_t>(r)] = block.d;
      if constexpr (Block::kHasMinimum) scale(g, true)[b * kGroup + static_cast<size_t>(r)] = block.m;
    }
  }
}

void InterleavedMatrix::fill(const Tensor& tensor, int first, int last) {
  for (int g = first; g < last; ++g) switch (dtype_) {
      case DType::kF32:
        fill_floats<uint32_t>(tensor, g);
        break;
      case DType::kF16:
      case DType::kBF16:
        fill_floats<uint16_t>(tensor, g);
        break;
      case DType::kQ8_0:
        fill_blocks<BlockQ8_0>(tensor, g);
        break;
      case DType::kQ4_0:
        fill_blocks<BlockQ4_0>(tensor, g);
        break;
      case DType::kQ4_1:
        fill_blocks<BlockQ4_1>(tensor, g);
        break;
    }
}

template <typename Block>
void InterleavedMatrix::read_blocks(int64_t row, float* out) const {
  auto* self = const_cast<InterleavedMatrix*>(this);  // scale() computes an address only
  const int g = static_cast<int>(row / kGroup), r = static_cast<int>(row % kGroup);
  const size_t code_bytes = group_bytes(dtype_, Block::kElements);
  for (int64_t b = 0; b < cols_ / Block::kElements; ++b) {
    const std::byte* codes = group(g) + static_cast<size_t>(b) * code_bytes;
    const float d = f16_to_f32(self->scale(g, false)[b * kGroup + r]);
    for (int k = 0; k < Block::kElements; ++k) {
      float value = d * static_cast<float>(code(static_cast<const Block*>(nullptr), codes, r, k));
      if constexpr (Block::kHasMinimum) value = value + f16_to_f32(self->scale(g, true)[b * kGroup + r]);
      out[b * Block::kElements + k] = value;
    }
  }
}

void InterleavedMatrix::read_row(int64_t row, float scale, float* out) const {
  const auto g = static_cast<int>(row / kGroup);
  const auto r = static_cast<size_t>(row % kGroup);
  const auto* wide = reinterpret_cast<const float*>(group(g));
  const auto* narrow = reinterpret_cast<const uint16_t*>(group(g));
  const auto cols = static_cast<size_t>(cols_);
  switch (dtype_) {
    case DType::kF32:
      for (size_t k = 0; k < cols; ++k) out[k] = wide[k * kGroup + r];
      break;
    case DType::kF16:
      for (size_t k = 0; k < cols; ++k) out[k] = f16_to_f32(narrow[k * kGroup + r]);
      break;
    case DType::kBF16:
      for (size_t k = 0; k < cols; ++k) out[k] = bf16_to_f32(narrow[k * kGroup + r]);
      break;
    case DType::kQ8_0:
      read_blocks<BlockQ8_0>(row, out);
      break;
    case DType::kQ4_0:
      read_blocks<BlockQ4_0>(row, out);
      break;
    case DType::kQ4_1:
      read_blocks<BlockQ4_1>(row, out);
      break;
  }
  for (size_t k = 0; k < cols; ++k) out[k] = out[k] * scale;
}

}  // namespace llorch::cpu
