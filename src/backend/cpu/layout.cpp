#include "backend/cpu/layout.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstring>

#include "base/error.h"
#include "tensor/blocks.h"

namespace llorch::cpu {
namespace {

constexpr size_t kHugePage = size_t{2} << 20;

// How a block of the file is placed, and the record of its scales.
template <typename Block>
struct Place : Placed<Block::kType> {
  using Base = Placed<Block::kType>;
  static_assert(Block::kElements == Base::kRecordBlocks * kQuantBlock);
  static_assert(Block::kScaleGroup * Base::kScaleGroups == kQuantBlock && Block::kHasMinimum == Base::kMinimum);
};
template <typename Block>
using ScalesOf = typename Place<Block>::Scales;

// Bytes of one group's elements or codes, and of its scale records, for `cols` columns.
size_t group_bytes(DType dtype, int64_t cols) {
  size_t bytes = static_cast<size_t>(cols) * kGroup * block_bytes(dtype);  // of the float types
  visit_block_type(dtype, [&]<typename Block>(const Block&) {
    bytes = static_cast<size_t>(cols / kQuantBlock) * Place<Block>::kCodeBytes;
  });
  return bytes;
}
size_t record_bytes(DType dtype, int64_t cols) {
  size_t bytes = 0;
  visit_block_type(dtype, [&]<typename Block>(const Block&) {
    bytes = static_cast<size_t>(cols / Block::kElements) * sizeof(ScalesOf<Block>);
  });
  return bytes;
}

// The low nibbles of 8 bytes as one word: those of even bytes in its low half, of odd bytes in its high half.
uint32_t pack_nibbles(uint64_t bytes) {
  const auto gather = [](uint64_t x) {  // one nibble in each 16 bits
    x &= 0x000f000f000f000full;
    return static_cast<uint32_t>((x | x >> 12 | x >> 24 | x >> 36) & 0xffff);
  };
  return gather(bytes) | gather(bytes >> 8) << 16;
}

// Where bits 4 and up of element k stand in the second plane: word, and shift inside it.
constexpr int high_word(int high_bits, int k) { return k * high_bits / 32; }
constexpr int high_shift(int high_bits, int k) { return k / 2 * high_bits % 16 + k % 2 * 16; }

// Codes of 32 elements of row r, from element `first` of the block on.
template <typename Block>
void store_codes(const Block& block, int first, int r, std::byte* planes) {
  uint8_t codes[kQuantBlock];
  for (int k = 0; k < kQuantBlock; ++k)
    codes[k] = static_cast<uint8_t>(quant(block, first + k) + Place<Block>::kOffset);
  if constexpr (Place<Block>::kBits == 8) {
    for (int p = 0; p < kPairs; ++p) std::memcpy(planes + p * 2 * kGroup + 2 * r, codes + 2 * p, 2);
  } else {
    for (int word = 0; word < 4; ++word) {
      uint64_t bytes;
      std::memcpy(&bytes, codes + 8 * word, 8);
      const uint32_t nibbles = pack_nibbles(bytes);
      std::memcpy(planes + (word * kGroup + r) * 4, &nibbles, 4);
    }
    constexpr int kHighBits = Place<Block>::kBits - 4;
    uint32_t high[kHighBits + 1] = {};
    for (int k = 0; k < kQuantBlock * (kHighBits > 0); ++k)
      high[high_word(kHighBits, k)] |= static_cast<uint32_t>(codes[k] >> 4) << high_shift(kHighBits, k);
    for (int word = 0; word < kHighBits; ++word)
      std::memcpy(planes + kNibbleBytes + (word * kGroup + r) * 4, &high[word], 4);
  }
}

// Element k (0..31) of row r.
template <typename Block>
int code(const std::byte* planes, int r, int k) {
  constexpr int kHighBits = Place<Block>::kBits - 4;
  const auto word = [&](int index) {
    uint32_t value;
    std::memcpy(&value, planes + (index * kGroup + r) * 4, 4);
    return value;
  };
  if constexpr (kHighBits == 4) {
    return static_cast<int8_t>(planes[k / 2 * 2 * kGroup + 2 * r + k % 2]);
  } else {
    uint32_t value = word(k / 8) >> (k % 2 * 16 + k % 8 / 2 * 4) & 15;
    if constexpr (kHighBits > 0)
      value |= (word(4 + high_word(kHighBits, k)) >> high_shift(kHighBits, k) & ((1u << kHighBits) - 1)) << 4;
    return static_cast<int>(value) - Place<Block>::kOffset;
  }
}

template <typename Block>
void store_scales(const Block& block, int r, ScalesOf<Block>& record) {
  record.d[r] = block.d;
  if constexpr (requires { block.m; }) record.m[r] = block.m;
  if constexpr (requires { block.dmin; }) {
    record.m[r] = block.dmin ^ 0x8000;
    for (int g = 0; g < 8; ++g) {
      record.scales[g][r] = static_cast<uint8_t>(k_scale(block.scales, g));
      record.minimums[g][r] = static_cast<uint8_t>(k_minimum(block.scales, g));
    }
  } else if constexpr (requires { record.scales; }) {
    for (int g = 0; g < 16; ++g) record.scales[g][r] = block.scales[g];
  }
}

// Scale and minimum of group g of row r.
template <typename Scales>
float scale_of(const Scales& record, int g, int r) {
  float scale = f16_to_f32(record.d[r]);
  if constexpr (requires { record.scales; }) scale = scale * static_cast<float>(record.scales[g][r]);
  return scale;
}
template <typename Scales>
float minimum_of(const Scales& record, int g, int r) {
  float minimum = f16_to_f32(record.m[r]);
  if constexpr (requires { record.minimums; }) minimum = minimum * static_cast<float>(record.minimums[g][r]);
  return minimum;
}

size_t aligned(size_t bytes) { return (bytes + 63) / 64 * 64; }

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

size_t InterleavedMatrix::bytes(DType dtype, int64_t rows, int64_t cols) {
  const auto groups = static_cast<size_t>((rows + kGroup - 1) / kGroup);
  return groups * (aligned(group_bytes(dtype, cols)) + record_bytes(dtype, cols));
}

InterleavedMatrix::InterleavedMatrix(DType dtype, int64_t rows, int64_t cols, std::byte* memory)
    : dtype_(dtype),
      rows_(rows),
      cols_(cols),
      groups_(static_cast<int>((rows + kGroup - 1) / kGroup)),
      stride_(aligned(group_bytes(dtype, cols))),
      scale_stride_(record_bytes(dtype, cols)),
      codes_(memory),
      scales_(memory + static_cast<size_t>(groups_) * stride_) {}

MatrixView InterleavedMatrix::view() const {
  return {.data = codes_,
          .scales = scales_,
          .data_stride = stride_,
          .scale_stride = scale_stride_,
          .rows = static_cast<int32_t>(rows_),
          .cols = static_cast<int32_t>(cols_)};
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
  auto* records = reinterpret_cast<ScalesOf<Block>*>(scales_ + static_cast<size_t>(g) * scale_stride_);
  for (int r = 0; r < n; ++r) {
    const size_t row = static_cast<size_t>(g) * kGroup + static_cast<size_t>(r);
    const std::byte* in = tensor.bytes.data() + row * n_blocks * sizeof(Block);
    for (size_t b = 0; b < n_blocks; ++b) {
      Block block;
      std::memcpy(&block, in + b * sizeof(Block), sizeof(Block));
      store_scales<Block>(block, r, records[b]);
      std::byte* planes = group(g) + b * Place<Block>::kRecordBlocks * Place<Block>::kCodeBytes;
      for (int i = 0; i < Place<Block>::kRecordBlocks; ++i)
        store_codes<Block>(block, i * kQuantBlock, r, planes + static_cast<size_t>(i) * Place<Block>::kCodeBytes);
    }
  }
}

void InterleavedMatrix::fill(const Tensor& tensor, int first, int last) {
  for (int g = first; g < last; ++g) {
    if (dtype_ == DType::kF32) fill_floats<uint32_t>(tensor, g);
    if (dtype_ == DType::kF16 || dtype_ == DType::kBF16) fill_floats<uint16_t>(tensor, g);
    visit_block_type(dtype_, [&]<typename Block>(const Block&) { fill_blocks<Block>(tensor, g); });
  }
}

template <typename Block>
void InterleavedMatrix::read_blocks(int64_t row, float* out) const {
  constexpr int kScaleGroup = Block::kScaleGroup;
  const int g = static_cast<int>(row / kGroup), r = static_cast<int>(row % kGroup);
  const auto* records = reinterpret_cast<const ScalesOf<Block>*>(scales_ + static_cast<size_t>(g) * scale_stride_);
  for (int64_t k = 0; k < cols_; ++k) {
    const std::byte* planes = group(g) + static_cast<size_t>(k / kQuantBlock) * Place<Block>::kCodeBytes;
    const auto& record = records[k / Block::kElements];
    const int scale_group = static_cast<int>(k % Block::kElements) / kScaleGroup;
    float value = scale_of(record, scale_group, r) *
                  static_cast<float>(code<Block>(planes, r, static_cast<int>(k % kQuantBlock)));
    if constexpr (Place<Block>::kMinimum) value = value + minimum_of(record, scale_group, r);
    out[k] = value;
  }
}

void InterleavedMatrix::read_row(int64_t row, float scale, float* out) const {
  const auto g = static_cast<int>(row / kGroup);
  const auto r = static_cast<size_t>(row % kGroup);
  const auto* wide = reinterpret_cast<const float*>(group(g));
  const auto* narrow = reinterpret_cast<const uint16_t*>(group(g));
  const auto cols = static_cast<size_t>(cols_);
  if (dtype_ == DType::kF32)
    for (size_t k = 0; k < cols; ++k) out[k] = wide[k * kGroup + r];
  if (dtype_ == DType::kF16)
    for (size_t k = 0; k < cols; ++k) out[k] = f16_to_f32(narrow[k * kGroup + r]);
  if (dtype_ == DType::kBF16)
    for (size_t k = 0; k < cols; ++k) out[k] = bf16_to_f32(narrow[k * kGroup + r]);
  visit_block_type(dtype_, [&]<typename Block>(const Block&) { read_blocks<Block>(row, out); });
  for (size_t k = 0; k < cols; ++k) out[k] = out[k] * scale;
}

}  // namespace llorch::cpu
