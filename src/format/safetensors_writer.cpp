#include "format/safetensors_writer.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>
#include <vector>

#include "base/error.h"

namespace llorch {
namespace {

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
      break;
  }
  fail("{}: tensor {}: SafeTensors holds f32, f16 or bf16, got {}", where, tensor.name, to_string(tensor.dtype));
}

void check_size(const Tensor& tensor, const std::string& where) {
  uint64_t bytes = block_bytes(tensor.dtype);
  for (const int64_t size : tensor.shape) bytes *= static_cast<uint64_t>(size);
  if (bytes != tensor.bytes.size()) {
    fail("{}: tensor {}: {} {} needs {} bytes, got {}", where, tensor.name, to_string(tensor.dtype),
         shape_string(tensor.shape), bytes, tensor.bytes.size());
  }
}

}  // namespace

void write_safetensors(const std::filesystem::path& path, std::span<const Tensor> tensors,
                       const std::map<std::string, std::string>& metadata) {
  const std::string where = path.string();
  // The format allows no holes: tensors of 4 bytes go first, so that every tensor is aligned to its element.
  std::vector<const Tensor*> order;
  for (const Tensor& tensor : tensors) order.push_back(&tensor);
  std::stable_sort(order.begin(), order.end(),
                   [](const Tensor* a, const Tensor* b) { return block_bytes(a->dtype) > block_bytes(b->dtype); });

  nlohmann::ordered_json header = nlohmann::ordered_json::object();
  std::set<std::string> names = {"__metadata__"};
  if (!metadata.empty()) header["__metadata__"] = metadata;
  uint64_t offset = 0;
  for (const Tensor* tensor : order) {
    const char* type = type_name(*tensor, where);
    check_size(*tensor, where);
    if (!names.insert(tensor->name).second) fail("{}: tensor {} stands twice", where, tensor->name);
    const uint64_t end = offset + tensor->bytes.size();
    header[tensor->name] = {{"dtype", type}, {"shape", tensor->shape}, {"data_offsets", {offset, end}}};
    offset = end;
  }
  std::string text = header.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');

  std::ofstream out(path, std::ios::binary | std::ios::trunc);
  for (int shift = 0; shift < 64; shift += 8) out.put(static_cast<char>(text.size() >> shift));
  out.write(text.data(), static_cast<std::streamsize>(text.size()));
  for (const Tensor* tensor : order) {
    out.write(reinterpret_cast<const char*>(tensor->bytes.data()), static_cast<std::streamsize>(tensor->bytes.size()));
  }
  out.close();
  if (!out) fail("{}: cannot write: {}", where, std::strerror(errno));
}

}  // namespace llorch
