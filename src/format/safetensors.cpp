#include "format/safetensors.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "base/error.h"
#include "format/json_file.h"
#include "format/printable.h"

namespace llorch {
namespace {

using nlohmann::json;

// One entry of the header, checked by itself; offsets count from the start of the data.
struct Entry {
  std::string name;  // as in the file
  std::string type;
  std::vector<int64_t> shape;
  uint64_t begin;
  uint64_t end;
};

std::optional<DType> supported_type(std::string_view type) {
  if (type == "F32") return DType::kF32;
  if (type == "F16") return DType::kF16;
  if (type == "BF16") return DType::kBF16;
  return std::nullopt;
}

// Begins each message: file and tensor.
std::string place(const std::filesystem::path& file, std::string_view name) {
  return fmt::format("{}: tensor {}", file.string(), printable(name));
}

const json& field(const json& value, const char* key, std::string_view where) {
  const auto it = value.find(key);
  if (it == value.end()) fail("{}: field \"{}\" is missing", where, key);
  return *it;
}

uint64_t unsigned_number(const json& value, std::string_view what, std::string_view where) {
  if (!value.is_number_unsigned()) {
    fail("{}: {}: expected an integer of 0 or more, got {}", where, what, printable(value.dump(), 40));
  }
  return value.get<uint64_t>();
}

Entry parse_entry(const std::string& name, const json& value, const std::filesystem::path& file) {
  const std::string where = place(file, name);
  if (!value.is_object()) fail("{}: expected an object in the header, got {}", where, value.type_name());
  const json& type = field(value, "dtype", where);
  const json& shape = field(value, "shape", where);
  const json& offsets = field(value, "data_offsets", where);
  if (!type.is_string()) fail("{}: dtype: expected a string, got {}", where, type.type_name());
  if (!shape.is_array()) fail("{}: shape: expected an array, got {}", where, shape.type_name());
  if (!offsets.is_array() || offsets.size() != 2) fail("{}: data_offsets: expected two integers", where);
  Entry entry{name, printable(type.get_ref<const std::string&>(), 20), {}, 0, 0};
  for (const json& dimension : shape) {
    const uint64_t size = unsigned_number(dimension, "shape", where);
    if (size > INT64_MAX) fail("{}: shape: {} does not fit", where, size);
    entry.shape.push_back(static_cast<int64_t>(size));
  }
  entry.begin = unsigned_number(offsets[0], "data_offsets", where);
  entry.end = unsigned_number(offsets[1], "data_offsets", where);
  return entry;
}

// Bytes that type and shape ask for.
uint64_t expected_bytes(const Entry& entry, DType type, std::string_view where) {
  uint64_t bytes = block_bytes(type);
  for (const int64_t size : entry.shape) {
    if (__builtin_mul_overflow(bytes, static_cast<uint64_t>(size), &bytes)) {
      fail("{}: shape {} overflows", where, printable(shape_string(entry.shape)));
    }
  }
  return bytes;
}

void add_tensor(const Entry& entry, std::span<const std::byte> data, const std::filesystem::path& file,
                TensorTable& table) {
  const std::string where = place(file, entry.name);
  const uint64_t bytes = entry.end - entry.begin;
  const auto type = supported_type(entry.type);
  if (!type) {
    table.add(UnsupportedTensor{canonical_name(entry.name), entry.type, entry.shape, bytes, file});
    return;
  }
  const uint64_t expected = expected_bytes(entry, *type, where);
  if (bytes != expected) {
    fail("{}: {} {} needs {} bytes, but data_offsets [{}, {}] hold {}", where, entry.type,
         printable(shape_string(entry.shape)), expected, entry.begin, entry.end, bytes);
  }
  table.add(Tensor{canonical_name(entry.name), *type, entry.shape, data.subspan(entry.begin, bytes)}, file);
}

// The format allows neither overlaps nor holes: tensors in order of their offsets cover the data exactly.
void check_cover(const std::vector<Entry>& entries, uint64_t data_bytes, const std::filesystem::path& file) {
  uint64_t covered = 0;
  for (const Entry& entry : entries) {
    const std::string where = place(file, entry.name);
    if (entry.end < entry.begin || entry.end > data_bytes) {
      fail("{}: data_offsets [{}, {}] do not lie in the {} bytes of data", where, entry.begin, entry.end, data_bytes);
    }
    if (entry.begin < covered) fail("{}: data_offsets [{}, {}] overlap another tensor", where, entry.begin, entry.end);
    if (entry.begin > covered) fail("{}: {} bytes before it belong to no tensor", where, entry.begin - covered);
    covered = entry.end;
  }
  if (covered != data_bytes) {
    fail("{}: expected {} bytes of data as the header says, got {}", file.string(), covered, data_bytes);
  }
}

std::map<std::string, std::string> parse_metadata(const json& value, const std::filesystem::path& file) {
  const std::string where = file.string() + ": __metadata__";
  if (!value.is_object()) fail("{}: expected an object, got {}", where, value.type_name());
  std::map<std::string, std::string> metadata;
  for (const auto& [key, text] : value.items()) {
    if (!text.is_string()) fail("{}: {}: expected a string, got {}", where, printable(key), text.type_name());
    metadata.emplace(key, text.get<std::string>());
  }
  return metadata;
}

// The header's text; `data` receives what follows it.
std::string_view split_header(std::span<const std::byte> bytes, const std::filesystem::path& file,
                              std::span<const std::byte>& data) {
  const std::string where = file.string();
  if (bytes.size() < 8) fail("{}: expected a SafeTensors header, got a file of {} bytes", where, bytes.size());
  uint64_t length = 0;
  for (size_t i = 0; i < 8; ++i) length |= std::to_integer<uint64_t>(bytes[i]) << (8 * i);
  if (length > kMaxSafetensorsHeader) {
    fail("{}: expected a SafeTensors header of at most {} bytes, got {}", where, kMaxSafetensorsHeader, length);
  }
  if (length > bytes.size() - 8) {
    fail("{}: the header needs {} bytes, but {} remain", where, length, bytes.size() - 8);
  }
  data = bytes.subspan(8 + length);
  return {reinterpret_cast<const char*>(bytes.data()) + 8, static_cast<size_t>(length)};
}

}  // namespace

std::map<std::string, std::string> read_safetensors(std::span<const std::byte> bytes, const std::filesystem::path& file,
                                                    TensorTable& table, std::vector<std::string>& file_names) {
  std::span<const std::byte> data;
  const json header = parse_json(split_header(bytes, file, data), file.string() + ": header");
  if (!header.is_object()) {
    fail("{}: header: expected an object, got {}", file.string(), header.type_name());
  }
  std::map<std::string, std::string> metadata;
  std::vector<Entry> entries;
  for (const auto& [name, value] : header.items()) {
    if (name == "__metadata__") {
      metadata = parse_metadata(value, file);
    } else {
      entries.push_back(parse_entry(name, value, file));
    }
  }
  std::sort(entries.begin(), entries.end(),
            [](const Entry& a, const Entry& b) { return std::pair(a.begin, a.end) < std::pair(b.begin, b.end); });
  check_cover(entries, data.size(), file);
  for (const Entry& entry : entries) {
    add_tensor(entry, data, file, table);
    file_names.push_back(entry.name);
  }
  return metadata;
}

}  // namespace llorch
