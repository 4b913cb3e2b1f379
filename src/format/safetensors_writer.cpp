#include "format/safetensors_writer.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>
#include <numeric>
#include <set>
#include <utility>

#include "base/error.h"

namespace llorch {
namespace {

constexpr uint64_t kLengthBytes = 8;

const char* type_name(const Tensor& tensor, const std::string& where) {
  switch (tensor.dtype) {
    case DType::kF32:
      return "F32";
    case DType::kF16:
      return "F16";
    case DType::kBF16:
      return "BF16";
    case DType::kQ8_0:
    case DType::kQ4_0:
    case DType::kQ4_1:
    case DType::kQ5_0:
    case DType::kQ5_1:
    case DType::kQ4_K:
    case DType::kQ5_K:
    case DType::kQ6_K:
      break;
  }
  fail("{}: tensor {}: SafeTensors holds f32, f16 or bf16, got {}", where, tensor.name, to_string(tensor.dtype));
}

uint64_t bytes_of(const Tensor& tensor) {
  uint64_t bytes = block_bytes(tensor.dtype);
  for (const int64_t size : tensor.shape) bytes *= static_cast<uint64_t>(size);
  return bytes;
}

// The format allows no holes: tensors of 4 bytes go first, so that every tensor is aligned to its element.
std::vector<size_t> file_order(std::span<const Tensor> tensors) {
  std::vector<size_t> order(tensors.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return block_bytes(tensors[a].dtype) > block_bytes(tensors[b].dtype); });
  return order;
}

}  // namespace

SafetensorsWriter::SafetensorsWriter(std::filesystem::path path, std::span<const Tensor> tensors,
                                     const std::map<std::string, std::string>& metadata)
    : path_(std::move(path)), places_(tensors.size()) {
  const std::string where = path_.string();
  nlohmann::ordered_json header = nlohmann::ordered_json::object();
  std::set<std::string> names = {"__metadata__"};
  if (!metadata.empty()) header["__metadata__"] = metadata;
  for (const size_t i : file_order(tensors)) {
    const Tensor& tensor = tensors[i];
    const char* type = type_name(tensor, where);
    if (!names.insert(tensor.name).second) fail("{}: tensor {} stands twice", where, tensor.name);
    places_[i] = {missing_, bytes_of(tensor)};
    missing_ += places_[i].bytes;
    header[tensor.name] = {{"dtype", type}, {"shape", tensor.shape}, {"data_offsets", {places_[i].begin, missing_}}};
  }
  std::string text = header.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
  text.resize((text.size() + 7) / 8 * 8, ' ');
  header_bytes_ = text.size();
  for (Place& place : places_) place.begin += kLengthBytes + header_bytes_;

  out_.open(path_, std::ios::binary | std::ios::trunc);
  const std::string no_length(kLengthBytes, '\0');
  put(0, no_length.data(), no_length.size());
  put(kLengthBytes, text.data(), text.size());
}

void SafetensorsWriter::put(uint64_t at, const char* bytes, size_t size) {
  out_.seekp(static_cast<std::streamoff>(at));
  out_.write(bytes, static_cast<std::streamsize>(size));
  if (!out_) fail("{}: cannot write: {}", path_.string(), std::strerror(errno));
}

void SafetensorsWriter::write(size_t index, uint64_t offset, std::span<const std::byte> bytes) {
  const Place& place = places_.at(index);
  LLORCH_CHECK(offset <= place.bytes && bytes.size() <= place.bytes - offset && bytes.size() <= missing_,
               "{}: bytes [{}, +{}) of a tensor of {}", path_.string(), offset, bytes.size(), place.bytes);
  put(place.begin + offset, reinterpret_cast<const char*>(bytes.data()), bytes.size());
  missing_ -= bytes.size();
}

void SafetensorsWriter::finish() {
  LLORCH_CHECK(missing_ == 0, "{}: {} bytes were declared and not written", path_.string(), missing_);
  char length[kLengthBytes];
  for (size_t i = 0; i < kLengthBytes; ++i) length[i] = static_cast<char>(header_bytes_ >> (8 * i));
  put(0, length, sizeof length);
  out_.close();
  if (!out_) fail("{}: cannot write: {}", path_.string(), std::strerror(errno));
}

void write_safetensors(const std::filesystem::path& path, std::span<const Tensor> tensors,
                       const std::map<std::string, std::string>& metadata) {
  SafetensorsWriter writer(path, tensors, metadata);
  for (size_t i = 0; i < tensors.size(); ++i) {
    const Tensor& tensor = tensors[i];
    if (bytes_of(tensor) != tensor.bytes.size()) {
      fail("{}: tensor {}: {} {} needs {} bytes, got {}", path.string(), tensor.name, to_string(tensor.dtype),
           shape_string(tensor.shape), bytes_of(tensor), tensor.bytes.size());
    }
    writer.write(i, 0, tensor.bytes);
  }
  writer.finish();
}

}  // namespace llorch
