#include "format/gguf.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <utility>

#include "base/error.h"
#include "format/byte_reader.h"
#include "format/printable.h"

namespace llorch {
namespace {

constexpr std::array<char, 4> kMagic = {'G', 'G', 'U', 'F'};
constexpr uint64_t kDefaultAlignment = 32;
constexpr uint32_t kMaxDimensions = 4;
constexpr int kMaxArrayDepth = 4;
constexpr size_t kMaxNameBytes = 65535;  // the specification's limit for keys
constexpr uint64_t kMinPairBytes = 8 + 4 + 1;
constexpr uint64_t kMinTensorBytes = 8 + 4 + 4 + 8;

// One tensor as the directory has it; `offset` counts from the start of the data.
struct Entry {
  std::string_view name;
  std::vector<int64_t> shape;  // ours: the file's dimensions reversed
  uint32_t type;
  uint64_t offset;
  uint64_t bytes = 0;  // 0 if the type is unsupported: its size is unknown
};

std::optional<DType> supported_type(uint32_t type) {
  switch (type) {
    case 0:
      return DType::kF32;
    case 1:
      return DType::kF16;
    case 2:
      return DType::kQ4_0;
    case 3:
      return DType::kQ4_1;
    case 6:
      return DType::kQ5_0;
    case 7:
      return DType::kQ5_1;
    case 8:
      return DType::kQ8_0;
    case 12:
      return DType::kQ4_K;
    case 13:
      return DType::kQ5_K;
    case 14:
      return DType::kQ6_K;
    case 30:
      return DType::kBF16;
    default:
      return std::nullopt;
  }
}

std::string type_text(uint32_t type) {
  constexpr std::array<std::string_view, 31> kNames = {
      "F32",   "F16",    "Q4_0", "Q4_1", "Q4_2", "Q4_3",    "Q5_0",   "Q5_1",    "Q8_0",  "Q8_1",   "Q2_K",
      "Q3_K",  "Q4_K",   "Q5_K", "Q6_K", "Q8_K", "IQ2_XXS", "IQ2_XS", "IQ3_XXS", "IQ1_S", "IQ4_NL", "IQ3_S",
      "IQ2_S", "IQ4_XS", "I8",   "I16",  "I32",  "I64",     "F64",    "IQ1_M",   "BF16"};
  return type < kNames.size() ? std::string(kNames[type]) : fmt::format("type {}", type);
}

// Bytes of a scalar in an array or alone; 0 for strings and arrays.
uint64_t scalar_bytes(GgufType type) {
  switch (type) {
    case GgufType::kU8:
    case GgufType::kI8:
    case GgufType::kBool:
      return 1;
    case GgufType::kU16:
    case GgufType::kI16:
      return 2;
    case GgufType::kU32:
    case GgufType::kI32:
    case GgufType::kF32:
      return 4;
    case GgufType::kU64:
    case GgufType::kI64:
    case GgufType::kF64:
      return 8;
    case GgufType::kString:
    case GgufType::kArray:
      return 0;
  }
  return 0;
}

GgufType read_type(ByteReader& reader) {
  const auto type = reader.number<uint32_t>("value type");
  if (type > static_cast<uint32_t>(GgufType::kF64)) {
    fail("{}: value type: expected 0 to {}, got {}", reader.where(), static_cast<uint32_t>(GgufType::kF64), type);
  }
  return static_cast<GgufType>(type);
}

// A name that goes into messages and logs: printable ASCII only.
std::string_view read_name(ByteReader& reader, std::string_view what) {
  const std::string_view name = reader.text(what);
  if (name.empty() || name.size() > kMaxNameBytes) {
    fail("{}: {}: expected 1 to {} characters, got {}", reader.where(), what, kMaxNameBytes, name.size());
  }
  for (const char c : name) {
    if (c <= 0x20 || c >= 0x7f) fail("{}: {} \"{}\": expected printable ASCII", reader.where(), what, printable(name));
  }
  return name;
}

void skip_values(ByteReader& reader, GgufType type, uint64_t count, int depth) {
  if (const uint64_t each = scalar_bytes(type)) {
    reader.expect_room(count, each, "values");
    const auto payload = reader.take(count * each, "values");
    if (type != GgufType::kBool) return;
    for (const std::byte b : payload) {
      if (b > std::byte{1}) fail("{}: bool: expected 0 or 1, got {}", reader.where(), std::to_integer<int>(b));
    }
    return;
  }
  if (type == GgufType::kString) {
    reader.expect_room(count, 8, "strings");
    for (uint64_t i = 0; i < count; ++i) (void)reader.text("string");
    return;
  }
  if (depth == kMaxArrayDepth) fail("{}: arrays nested deeper than {}", reader.where(), kMaxArrayDepth);
  reader.expect_room(count, 12, "arrays");
  for (uint64_t i = 0; i < count; ++i) {
    const GgufType element = read_type(reader);
    skip_values(reader, element, reader.number<uint64_t>("array length"), depth + 1);
  }
}

GgufMetadata::Value read_pair(ByteReader& reader, std::span<const std::byte> bytes, const std::string& file) {
  GgufMetadata::Value value{};
  value.key = read_name(reader, "key");
  reader.set_where(fmt::format("{}: key {}", file, printable(value.key)));
  value.type = value.element = read_type(reader);
  value.count = 1;
  if (value.type == GgufType::kArray) {
    value.element = read_type(reader);
    value.count = reader.number<uint64_t>("array length");
  }
  const size_t begin = reader.position();
  skip_values(reader, value.element, value.count, 1);
  value.payload = bytes.subspan(begin, reader.position() - begin);
  if (value.type == GgufType::kString) value.payload = value.payload.subspan(8);  // without its length
  reader.set_where(file);
  return value;
}

void read_shape(ByteReader& reader, Entry& entry) {
  const auto dimensions = reader.number<uint32_t>("number of dimensions");
  if (dimensions > kMaxDimensions) {
    fail("{}: expected at most {} dimensions, got {}", reader.where(), kMaxDimensions, dimensions);
  }
  for (uint32_t i = 0; i < dimensions; ++i) {
    const auto size = reader.number<uint64_t>("dimension");
    if (size == 0 || size > INT64_MAX) fail("{}: dimension {}: got {}", reader.where(), i, size);
    entry.shape.insert(entry.shape.begin(), static_cast<int64_t>(size));
  }
}

uint64_t tensor_bytes(const Entry& entry, DType dtype, std::string_view where) {
  const auto block = static_cast<int64_t>(block_elements(dtype));
  const int64_t cols = entry.shape.empty() ? 1 : entry.shape.back();
  if (cols % block != 0) {
    fail("{}: {} rows of {} elements are no multiple of the block of {}", where, to_string(dtype), cols, block);
  }
  uint64_t bytes = block_bytes(dtype);
  bool overflow = __builtin_mul_overflow(bytes, static_cast<uint64_t>(cols / block), &bytes);
  for (size_t i = 0; i + 1 < entry.shape.size(); ++i) {
    overflow |= __builtin_mul_overflow(bytes, static_cast<uint64_t>(entry.shape[i]), &bytes);
  }
  if (overflow) fail("{}: shape {} overflows", where, shape_string(entry.shape));
  return bytes;
}

std::string place(const std::string& file, const Entry& entry) {
  return fmt::format("{}: tensor {}", file, printable(entry.name));
}

Entry read_entry(ByteReader& reader, const std::string& file, uint64_t alignment) {
  Entry entry{};
  entry.name = read_name(reader, "tensor name");
  const std::string where = place(file, entry);
  reader.set_where(where);
  read_shape(reader, entry);
  entry.type = reader.number<uint32_t>("type");
  entry.offset = reader.number<uint64_t>("offset");
  if (entry.offset % alignment != 0) {
    fail("{}: offset {} is no multiple of the alignment {}", where, entry.offset, alignment);
  }
  if (const auto dtype = supported_type(entry.type)) entry.bytes = tensor_bytes(entry, *dtype, where);
  reader.set_where(file);
  return entry;
}

void add_tensors(const std::vector<Entry>& entries, std::span<const std::byte> data, const std::filesystem::path& file,
                 TensorTable& table) {
  uint64_t covered = 0;
  for (const Entry& entry : entries) {
    const std::string where = place(file.string(), entry);
    if (entry.offset > data.size() || entry.bytes > data.size() - entry.offset) {
      fail("{}: {} bytes at offset {} do not lie in the {} bytes of data", where, entry.bytes, entry.offset,
           data.size());
    }
    if (entry.offset < covered) fail("{}: offset {} overlaps another tensor", where, entry.offset);
    covered = entry.offset + entry.bytes;
    const auto dtype = supported_type(entry.type);
    if (dtype) {
      table.add(Tensor{canonical_name(entry.name), *dtype, entry.shape, data.subspan(entry.offset, entry.bytes)}, file);
    } else {
      table.add(UnsupportedTensor{canonical_name(entry.name), type_text(entry.type), entry.shape, 0, file});
    }
  }
}

uint64_t read_alignment(const GgufMetadata& metadata) {
  const uint64_t alignment = metadata.u64("general.alignment").value_or(kDefaultAlignment);
  if (!std::has_single_bit(alignment) || alignment > UINT32_MAX) {
    fail("{}: key general.alignment: expected a power of two, got {}", metadata.file().string(), alignment);
  }
  return alignment;
}

void read_version(ByteReader& reader) {
  const auto version = reader.number<uint32_t>("version");
  if (version == 2 || version == 3) return;
  const bool big_endian = version != 0 && (version & 0xffffu) == 0;
  fail("{}: expected GGUF version 2 or 3, got {}{}", reader.where(), version, big_endian ? " (a big-endian file)" : "");
}

}  // namespace

bool is_gguf(std::span<const std::byte> bytes) {
  return bytes.size() >= kMagic.size() && std::memcmp(bytes.data(), kMagic.data(), kMagic.size()) == 0;
}

GgufMetadata read_gguf(std::span<const std::byte> bytes, const std::filesystem::path& file, TensorTable& table) {
  const std::string where = file.string();
  if (!is_gguf(bytes)) fail("{}: expected a GGUF file", where);
  ByteReader reader(bytes, where);
  (void)reader.take(kMagic.size(), "magic");
  read_version(reader);
  const auto tensor_count = reader.number<uint64_t>("tensor count");
  const auto pair_count = reader.number<uint64_t>("metadata count");

  GgufMetadata metadata(file);
  reader.expect_room(pair_count, kMinPairBytes, "metadata pairs");
  for (uint64_t i = 0; i < pair_count; ++i) metadata.add(read_pair(reader, bytes, where));
  const uint64_t alignment = read_alignment(metadata);
  const uint64_t parts = metadata.u64("split.count").value_or(0);
  if (parts > 1) fail("{}: one of {} parts of a split GGUF; merge them first (llama-gguf-split --merge)", where, parts);

  reader.expect_room(tensor_count, kMinTensorBytes, "tensors");
  std::vector<Entry> entries;
  for (uint64_t i = 0; i < tensor_count; ++i) entries.push_back(read_entry(reader, where, alignment));
  std::stable_sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) { return a.offset < b.offset; });
  const uint64_t data_begin = (reader.position() + alignment - 1) / alignment * alignment;
  const auto data = data_begin < bytes.size() ? bytes.subspan(data_begin) : bytes.last(0);
  add_tensors(entries, data, file, table);
  return metadata;
}

}  // namespace llorch
