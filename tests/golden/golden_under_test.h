// What a golden program asks of its kind of backend, beside backends_under_test.h: one source file for each kind says
// it (cpu_golden.cpp, cuda_golden.cpp), the tests are the same.
#pragma once

#include <cstddef>
#include <memory>

#include "backend/backend.h"

namespace llorch::test {

// Another backend of the same arithmetic: the one under test gives its bits.
struct Twin {
  std::unique_ptr<Backend> backend;
  size_t longest_prompt;  // that it has time for
};
Twin make_twin();

}  // namespace llorch::test
