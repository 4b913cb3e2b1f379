#include "plan/hash.h"

#include <fmt/format.h>
#include <xxhash.h>

#include <algorithm>

namespace llorch {

uint64_t plan_hash(const Plan& plan) {
  constexpr uint32_t kPositions = 2;  // the second one has every frequency
  Plan bounded = plan;
  bounded.rope.context = 0;
  std::string bytes = to_text(bounded);
  const size_t angles = size_t{std::min(plan.context(), kPositions)} * plan.rope.half_dim;
  bytes.append(reinterpret_cast<const char*>(plan.rope.cos.data()), angles * sizeof(float));
  bytes.append(reinterpret_cast<const char*>(plan.rope.sin.data()), angles * sizeof(float));
  return XXH3_64bits(bytes.data(), bytes.size());
}

}  // namespace llorch
