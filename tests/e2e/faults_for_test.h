// Faults for workers under test: armed ones, damaged models, and what the log says of them.
#pragma once

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>

#include "worker_for_test.h"

namespace llorch {

// While it lives, workers that start have this fault armed.
struct Armed {
  explicit Armed(const std::string& fault) { ::setenv("LLORCH_FAULT", fault.c_str(), 1); }
  ~Armed() { ::unsetenv("LLORCH_FAULT"); }
};

// The fields of the last of the latest log lines with this message; {} if there is none.
inline nlohmann::json log_line(const WorkerProcess& worker, const std::string& message) {
  nlohmann::json found = nlohmann::json::object();
  std::istringstream lines(worker.last_log_lines());
  for (std::string line; std::getline(lines, line);) {
    const nlohmann::json entry = nlohmann::json::parse(line, nullptr, false);
    if (entry.is_object() && entry["fields"]["message"] == message) found = entry["fields"];
  }
  return found;
}

inline nlohmann::json awaited_log_line(const WorkerProcess& worker, const std::string& message) {
  EXPECT_TRUE(soon([&] { return !log_line(worker, message).empty(); })) << message << "\n" << worker.last_log_lines();
  return log_line(worker, message);
}

// A copy of the tiny model that may be damaged.
class Damaged {
 public:
  explicit Damaged(const std::string& name) : folder_(std::filesystem::path(testing::TempDir()) / name) {
    std::filesystem::remove_all(folder_);
    std::filesystem::copy(kTinyModel, folder_);
  }
  ~Damaged() { std::filesystem::remove_all(folder_); }

  std::string path() const { return folder_.string(); }
  nlohmann::json read(const char* file) const { return nlohmann::json::parse(std::ifstream(folder_ / file)); }
  void write(const char* file, const nlohmann::json& value) const { std::ofstream(folder_ / file) << value; }

  // Writes NaN into the first element of a row of a bf16 tensor.
  void poke_nan(const std::string& tensor, size_t row) const {
    std::fstream file(folder_ / "model.safetensors", std::ios::in | std::ios::out | std::ios::binary);
    uint64_t header_bytes = 0;
    file.read(reinterpret_cast<char*>(&header_bytes), sizeof header_bytes);
    std::string text(header_bytes, ' ');
    file.read(text.data(), static_cast<std::streamsize>(header_bytes));
    const nlohmann::json entry = nlohmann::json::parse(text)[tensor];
    const size_t cols = entry["shape"].back();
    file.seekp(static_cast<std::streamoff>(8 + header_bytes + entry["data_offsets"][0].get<size_t>() + row * cols * 2));
    file.write("\xc0\x7f", 2);
  }

 private:
  std::filesystem::path folder_;
};

}  // namespace llorch
