#include "format/checkpoint.h"

#include <algorithm>
#include <set>
#include <string>
#include <utility>

#include "base/error.h"
#include "format/json_file.h"
#include "format/printable.h"
#include "format/safetensors.h"

namespace llorch {
namespace {

using nlohmann::json;

constexpr std::string_view kIndexSuffix = ".safetensors.index.json";

bool ends_with(std::string_view text, std::string_view suffix) {
  return text.size() >= suffix.size() && text.substr(text.size() - suffix.size()) == suffix;
}

bool file_exists(const std::filesystem::path& path) {
  std::error_code error;
  return std::filesystem::exists(path, error);
}

json read_object(const std::filesystem::path& path) {
  json value = read_json_file(path);
  if (!value.is_object()) fail("{}: expected a JSON object, got {}", path.string(), value.type_name());
  return value;
}

// Shard names come from the index and must stay in its directory.
std::string shard_name(const json& value, const std::string& tensor, const std::filesystem::path& index) {
  if (!value.is_string()) {
    fail("{}: tensor {}: expected a file name, got {}", index.string(), printable(tensor), value.type_name());
  }
  const auto& name = value.get_ref<const std::string&>();
  const bool escapes = name.find_first_of(std::string_view("/\\\0", 3)) != std::string::npos;
  if (name.empty() || name == "." || name == ".." || escapes) {
    fail("{}: tensor {}: expected a file name in this directory, got \"{}\"", index.string(), printable(tensor),
         printable(name));
  }
  return name;
}

// What the bytes of a file that is no model look like, for the message.
std::string first_bytes(std::span<const std::byte> bytes) {
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()), std::min<size_t>(bytes.size(), 16));
  if (text.substr(0, 8) == "version ") return "a Git LFS pointer (run git lfs pull)";
  return text.empty() ? "an empty file" : fmt::format("a file that begins with \"{}\"", printable(text));
}

}  // namespace

Checkpoint Checkpoint::open(const std::filesystem::path& path) {
  Checkpoint checkpoint;
  checkpoint.path_ = path;
  std::error_code error;
  if (std::filesystem::is_directory(path, error)) {
    checkpoint.open_directory(path);
  } else if (ends_with(path.filename().string(), kIndexSuffix)) {
    checkpoint.open_index(path);
  } else {
    checkpoint.open_file(path);
  }
  return checkpoint;
}

void Checkpoint::open_directory(const std::filesystem::path& directory) {
  const auto file = directory / "model.safetensors";
  const auto index = directory / "model.safetensors.index.json";
  if (file_exists(file)) return open_file(file);
  if (file_exists(index)) return open_index(index);
  fail("{}: expected model.safetensors or model.safetensors.index.json in the directory (a GGUF file: give its path)",
       directory.string());
}

void Checkpoint::open_file(const std::filesystem::path& path) {
  MappedFile file(path);
  const auto bytes = file.bytes();
  if (is_gguf(bytes)) {
    container_ = Container::kGguf;
    metadata_ = read_gguf(bytes, path, table_);
  } else if (bytes.size() > 8 && bytes[8] == std::byte{'{'}) {
    std::vector<std::string> names;
    safetensors_metadata_ = read_safetensors(bytes, path, table_, names);
    read_configs(path.parent_path());
  } else {
    fail("{}: expected a GGUF or SafeTensors file, got {}", path.string(), first_bytes(bytes));
  }
  files_.push_back(std::move(file));
}

void Checkpoint::open_index(const std::filesystem::path& index) {
  const json content = read_object(index);
  const auto map = content.find("weight_map");
  if (map == content.end() || !map->is_object()) fail("{}: expected an object \"weight_map\"", index.string());
  std::map<std::string, std::set<std::string>> shards;  // file name -> names of its tensors
  for (const auto& [tensor, file] : map->items()) shards[shard_name(file, tensor, index)].insert(tensor);

  const auto directory = index.parent_path();
  for (auto& [name, tensors] : shards) {
    const auto path = directory / name;
    if (!file_exists(path)) fail("{}: shard {} is missing", index.string(), path.string());
    MappedFile file(path);
    std::vector<std::string> held;
    safetensors_metadata_.merge(read_safetensors(file.bytes(), path, table_, held));
    for (const std::string& tensor : held) tensors.erase(tensor);
    if (!tensors.empty()) {
      fail("{}: tensor {} is missing, which {} expects in it", path.string(), printable(*tensors.begin()),
           index.string());
    }
    files_.push_back(std::move(file));
  }
  read_configs(directory);
}

void Checkpoint::read_configs(const std::filesystem::path& directory) {
  directory_ = directory;
  if (const auto path = directory / "config.json"; file_exists(path)) config_ = read_object(path);
  if (const auto path = directory / "generation_config.json"; file_exists(path)) generation_config_ = read_object(path);
}

uint64_t Checkpoint::file_bytes() const {
  uint64_t bytes = 0;
  for (const MappedFile& file : files_) bytes += file.bytes().size();
  return bytes;
}

const Tensor* Checkpoint::find(std::string_view canonical) const { return table_.find(canonical); }

const Tensor& Checkpoint::at(std::string_view canonical) const {
  if (const Tensor* tensor = find(canonical)) return *tensor;
  fail("{}: tensor {} is missing", path_.string(), printable(canonical));
}

void Checkpoint::require(Container container, std::string_view what) const {
  if (container_ == container) return;
  fail("{}: {} belongs to a {} file, got a {} file", path_.string(), what,
       container == Container::kGguf ? "GGUF" : "SafeTensors", container_ == Container::kGguf ? "GGUF" : "SafeTensors");
}

const json& Checkpoint::config() const {
  require(Container::kSafetensors, "config.json");
  if (!config_) fail("{}: file is missing", (directory_ / "config.json").string());
  return *config_;
}

const json& Checkpoint::generation_config() const {
  require(Container::kSafetensors, "generation_config.json");
  return generation_config_;
}

std::filesystem::path Checkpoint::tokenizer_json() const {
  require(Container::kSafetensors, "tokenizer.json");
  return directory_ / "tokenizer.json";
}

const GgufMetadata& Checkpoint::metadata() const {
  require(Container::kGguf, "metadata");
  return *metadata_;
}

const MappedFile& Checkpoint::file_of(const Tensor& tensor) const {
  for (const MappedFile& file : files_) {
    if (file.contains(tensor.bytes)) return file;
  }
  LLORCH_CHECK(false, "{}: tensor {} is not of this checkpoint", path_.string(), tensor.name);
  return files_.front();
}

void Checkpoint::prefetch(const Tensor& tensor) const { file_of(tensor).prefetch(tensor.bytes); }

void Checkpoint::release(const Tensor& tensor) const { file_of(tensor).release(tensor.bytes); }

}  // namespace llorch
