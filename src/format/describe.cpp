#include "format/describe.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "format/printable.h"

namespace llorch {
namespace {

constexpr uint64_t kShownElements = 6;
constexpr size_t kShownCharacters = 120;

std::string quoted(std::string_view text) { return fmt::format("\"{}\"", printable(text, kShownCharacters)); }

template <typename T>
std::string number_text(const GgufMetadata::Value& value, uint64_t index) {
  T number;
  std::memcpy(&number, value.payload.data() + index * sizeof(T), sizeof(T));
  return fmt::format("{}", number);
}

// Element `index` of an array that holds neither strings nor arrays, or the scalar itself.
std::string element_text(const GgufMetadata::Value& value, uint64_t index) {
  switch (value.element) {
    case GgufType::kU8:
      return number_text<uint8_t>(value, index);
    case GgufType::kI8:
      return number_text<int8_t>(value, index);
    case GgufType::kU16:
      return number_text<uint16_t>(value, index);
    case GgufType::kI16:
      return number_text<int16_t>(value, index);
    case GgufType::kU32:
      return number_text<uint32_t>(value, index);
    case GgufType::kI32:
      return number_text<int32_t>(value, index);
    case GgufType::kU64:
      return number_text<uint64_t>(value, index);
    case GgufType::kI64:
      return number_text<int64_t>(value, index);
    case GgufType::kF32:
      return number_text<float>(value, index);
    case GgufType::kF64:
      return number_text<double>(value, index);
    case GgufType::kBool:
      return value.payload[index] == std::byte{0} ? "false" : "true";
    case GgufType::kString:
    case GgufType::kArray:
      break;
  }
  return "...";
}

std::string value_text(const GgufMetadata& metadata, const GgufMetadata::Value& value) {
  if (value.type == GgufType::kString) return quoted(*metadata.str(value.key));
  if (value.type != GgufType::kArray) return element_text(value, 0);
  const bool of_strings = value.element == GgufType::kString;
  const auto strings = of_strings ? metadata.strings(value.key) : std::vector<std::string_view>();
  std::string text = fmt::format("{} x {} [", value.count, to_string(value.element));
  for (uint64_t i = 0; i < std::min(value.count, kShownElements); ++i) {
    text += (i == 0 ? "" : ", ") + (of_strings ? quoted(strings[i]) : element_text(value, i));
  }
  return text + (value.count > kShownElements ? ", ...]" : "]");
}

void describe_gguf(const GgufMetadata& metadata, std::string& out) {
  out += fmt::format("\nmetadata ({} keys)\n", metadata.values().size());
  for (const auto& value : metadata.values()) {
    out += fmt::format("  {} = {}\n", printable(value.key), value_text(metadata, value));
  }
}

// The members of a JSON object, one line each, in ASCII.
void describe_json(std::string_view title, const nlohmann::json& object, std::string& out) {
  out += fmt::format("\n{}\n", title);
  for (const auto& [key, value] : object.items()) {
    out += fmt::format("  {} = {}\n", printable(key), printable(value.dump(-1, ' ', true), kShownCharacters));
  }
}

void describe_safetensors(const Checkpoint& checkpoint, std::string& out) {
  if (!checkpoint.safetensors_metadata().empty()) {
    describe_json("__metadata__", nlohmann::json(checkpoint.safetensors_metadata()), out);
  }
  if (checkpoint.has_config()) describe_json("config.json", checkpoint.config(), out);
  if (!checkpoint.generation_config().is_null()) {
    describe_json("generation_config.json", checkpoint.generation_config(), out);
  }
}

void describe_tensors(const Checkpoint& checkpoint, std::string& out) {
  size_t width = 4;
  for (const Tensor& tensor : checkpoint.tensors()) width = std::max(width, printable(tensor.name).size());
  for (const UnsupportedTensor& tensor : checkpoint.unsupported()) {
    width = std::max(width, printable(tensor.name).size());
  }
  out += fmt::format("\ntensors ({})\n", checkpoint.tensors().size());
  const auto line = [&](std::string_view name, std::string_view type, const auto& shape, const auto& bytes) {
    out += fmt::format("  {:<{}}  {:<5}  {:<16}  {:>12}\n", name, width, type, shape, bytes);
  };
  line("name", "dtype", "shape", "bytes");
  uint64_t bytes = 0;
  for (const Tensor& tensor : checkpoint.tensors()) {
    line(printable(tensor.name), to_string(tensor.dtype), shape_string(tensor.shape), tensor.bytes.size());
    bytes += tensor.bytes.size();
  }
  line("total", "", "", bytes);
  if (checkpoint.unsupported().empty()) return;
  out += fmt::format("\ntensors of types that llorch does not read ({})\n", checkpoint.unsupported().size());
  for (const UnsupportedTensor& tensor : checkpoint.unsupported()) {
    line(printable(tensor.name), tensor.type, shape_string(tensor.shape),
         tensor.bytes == 0 ? std::string("?") : fmt::format("{}", tensor.bytes));
  }
}

}  // namespace

std::string describe(const Checkpoint& checkpoint) {
  const bool gguf = checkpoint.container() == Checkpoint::Container::kGguf;
  std::string out = fmt::format("{}: {}\n", checkpoint.path().string(), gguf ? "GGUF" : "SafeTensors");
  for (const MappedFile& file : checkpoint.files()) {
    const auto bytes = file.bytes().size();
    out += fmt::format("  {}  {} bytes ({:.1f} MB)\n", file.path().filename().string(), bytes,
                       static_cast<double>(bytes) / 1e6);
  }
  if (gguf) {
    describe_gguf(checkpoint.metadata(), out);
  } else {
    describe_safetensors(checkpoint, out);
  }
  describe_tensors(checkpoint, out);
  return out;
}

}  // namespace llorch
