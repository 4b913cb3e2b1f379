// The CPU backend with its planted bugs: one instruction set, one thread; and what bounds find of these bugs.
#include <set>

#include "backend/cpu/cpu_backend.h"
#include "backend/cpu/kernels.h"
#include "planted.h"
#include "planted_bugs.h"
#include "subject.h"
#include "trace/outside_for_test.h"

namespace llorch {

// The kernel tables that this test program leaves out: one carries the planted bugs as well as all.
namespace cpu {

const Kernels* avx512_kernels() { return nullptr; }
const Kernels* avx512vnni_kernels() { return nullptr; }

}  // namespace cpu

test::Subject test::make_subject(const std::string&) { return {make_cpu_backend({1, ""}), 131}; }

namespace {

// Bounds are wider than bits: of the bugs that change anything in a short run of a bf16 model, a few stay within them.
TEST(Mutation, ATraceFromOutsideNamesWhatIsMoreThanLastBits) {
  const std::set<std::string> last_bits = {"exp-with-a-term-less", "multiply-add-rounds-twice", "softmax-without-max"};
  const TraceFile outside(test::kOutsideTrace);
  const auto subject = test::make_subject("tiny").backend;
  size_t n_named = 0;
  for (const DType kv : {DType::kF32, DType::kF16}) {
    planted_bug = 0;
    const TraceFile sound = test::trace_tiny(*subject, outside.info(), kv);
    ASSERT_TRUE(diff_traces(sound, outside).same());
    for (const test::PlantedBug& bug : test::kPlantedBugs) {
      planted_bug = bug.number;
      const TraceFile sick = test::trace_tiny(*subject, outside.info(), kv);
      if (diff_traces(sick, sound).same()) continue;  // needs quantized weights, a window, more pages ...
      const bool is_within = last_bits.count(bug.id) != 0;
      EXPECT_EQ(test::first_outside_bounds(diff_traces(sick, outside)), is_within ? "" : bug.step) << bug.id;
      if (!is_within) ++n_named;
    }
  }
  planted_bug = 0;
  EXPECT_GE(n_named, size_t{2 * 26});
}

}  // namespace
}  // namespace llorch
