// The CPU backend on every instruction set and several numbers of threads.
#include <algorithm>
#include <cstdlib>
#include <span>

#include "backend/cpu/cpu_backend.h"
#include "backends_under_test.h"

namespace llorch::test {
namespace {

// Instruction sets of which at least the source is here; what the machine lacks is reported as skipped, never as
// passed.
constexpr const char* kIsas[] = {"avx2", "avx512", "avx512vnni", "neon"};
constexpr int kThreads[] = {1, 2, 3}, kTypicalThreads = 2;

class InstructionSet : public ::testing::TestWithParam<const char*> {};

TEST_P(InstructionSet, RunsHere) {
  const std::vector<std::string> names = cpu_isa_names();
  if (std::find(names.begin(), names.end(), GetParam()) == names.end())
    GTEST_SKIP() << "conformance of " << GetParam() << " was not run: this machine lacks it";
}

INSTANTIATE_TEST_SUITE_P(Conformance, InstructionSet, ::testing::ValuesIn(kIsas),
                         [](const auto& set) { return std::string(set.param); });

}  // namespace

std::vector<BackendUnderTest> backends_under_test() {
  std::vector<BackendUnderTest> all;
  for (const std::string& isa : cpu_isa_names())
    for (const int threads : kThreads) {
      const bool is_typical = threads == kTypicalThreads;
      if (!is_typical && is_short_set()) continue;
      all.push_back({fmt::format("{} with {} threads", isa, threads), make_cpu_backend({threads, isa}), is_typical});
    }
  return all;
}

std::unique_ptr<Backend> one_backend() { return make_cpu_backend({kTypicalThreads, ""}); }

std::string why_none() { return {}; }

// For emulators (scripts/test-neon).
bool is_short_set() { return std::getenv("LLORCH_CONFORMANCE_SHORT") != nullptr; }

}  // namespace llorch::test
