// Writes SafeTensors files, at once or piece by piece: for traces, benches and tests.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "tensor/tensor.h"

namespace llorch {

// A file whose tensors are known before their bytes are: declared first, then written in any order and in any pieces,
// so that memory stays bounded. No reader accepts the file before finish(): its header's length is written last.
class SafetensorsWriter {
 public:
  // Of each tensor the name, the type (f32, f16 or bf16) and the shape count; its bytes are not looked at. In the file
  // tensors of 4 bytes an element go first, otherwise in the given order, so that each starts at a multiple of its
  // element size. Throws Error: another type, a name twice, a file that cannot be written.
  SafetensorsWriter(std::filesystem::path path, std::span<const Tensor> tensors,
                    const std::map<std::string, std::string>& metadata);

  // Bytes of tensor `index` (as declared), from byte `offset` of it. Throws Error if they cannot be written.
  void write(size_t index, uint64_t offset, std::span<const std::byte> bytes);

  // Completes the file. Throws BugError if fewer bytes were written than were declared, Error if they cannot be.
  void finish();

 private:
  struct Place {
    uint64_t begin, bytes;  // in the file
  };
  void put(uint64_t at, const char* bytes, size_t size);

  std::filesystem::path path_;
  std::ofstream out_;
  std::vector<Place> places_;
  uint64_t header_bytes_ = 0, missing_ = 0;
};

// Writes whole tensors under their names as given. Throws Error as the writer does, and if a tensor's bytes do not
// match its shape (a half-written file may then remain).
void write_safetensors(const std::filesystem::path& path, std::span<const Tensor> tensors,
                       const std::map<std::string, std::string>& metadata = {});

}  // namespace llorch
