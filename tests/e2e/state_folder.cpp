// Bundles of the workers under test go to a temporary folder, and not to the home of whoever tests.
#include <gtest/gtest.h>

#include <cstdlib>

namespace llorch {
namespace {

const int kStateHome = ::setenv("XDG_STATE_HOME", (testing::TempDir() + "llorch_e2e_state").c_str(), 1);

}  // namespace
}  // namespace llorch
