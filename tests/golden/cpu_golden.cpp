// The CPU under golden tests: the best instruction set of this machine, beside the scalar reference. Of
// backends_under_test.h it is what these tests ask for.
#include "backend/cpu/cpu_backend.h"
#include "backend/reference/reference_backend.h"
#include "backends_under_test.h"
#include "golden_under_test.h"

namespace llorch::test {

std::unique_ptr<Backend> one_backend() { return make_cpu_backend({.threads = 2, .isa = ""}); }

std::string why_none() { return {}; }

bool is_short_set() { return false; }

Twin make_twin() { return {make_reference_backend(), 33}; }

}  // namespace llorch::test
