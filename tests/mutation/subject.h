// Which backend has the bugs: one source file for each kind says it (cpu_mutation.cpp, cuda_mutation.cpp), the tests
// are the same.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "backend/backend.h"

namespace llorch::test {

struct Subject {
  std::unique_ptr<Backend> backend;
  uint32_t max_positions;  // of the sequence that is watched
};
Subject make_subject(const std::string& model);

}  // namespace llorch::test
