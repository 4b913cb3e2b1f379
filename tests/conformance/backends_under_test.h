// Which backends a conformance or golden program tests: one source file for each kind says it (cpu_under_test.cpp,
// cuda_under_test.cpp), the tests are the same.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "backend/backend.h"

namespace llorch::test {

struct BackendUnderTest {
  std::string name;
  std::unique_ptr<Backend> backend;
  bool is_typical = true;  // tests that take long run all ways on the typical ones only
};

// All that run here: instruction sets and numbers of threads, devices. Empty if none does: why_none().
std::vector<BackendUnderTest> backends_under_test();

// One of them, for tests of what stands above backends.
std::unique_ptr<Backend> one_backend();

// Why there is none, in a sentence; empty if there is one. Tests then skip: what did not run has not passed.
std::string why_none();

// Run the short set: no batch above 17 rows but in attention, each attention case with one of its nine page sizes and
// KV types. All verbs, dtypes and widths stay. Golden prompts: no long one. For emulators.
bool is_short_set();

}  // namespace llorch::test

#define LLORCH_SKIP_WITHOUT_BACKEND() \
  if (const std::string why = ::llorch::test::why_none(); !why.empty()) GTEST_SKIP() << why
