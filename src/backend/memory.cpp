#include "backend/memory.h"

#include <algorithm>

namespace llorch {

uint64_t bytes_of(const std::vector<MemoryNeed>& needs, MemoryKind kind) {
  uint64_t total = 0;
  for (const MemoryNeed& need : needs) total += need.kind == kind ? need.bytes : 0;
  return total;
}

uint64_t device_bytes(const std::vector<MemoryNeed>& needs) {
  uint64_t total = 0;
  for (const MemoryKind kind : {MemoryKind::kWeights, MemoryKind::kKv, MemoryKind::kActivations, MemoryKind::kReserve})
    total += bytes_of(needs, kind);
  return total;
}

std::vector<MemoryNeed> weight_needs(const Plan& plan, const std::vector<size_t>& bytes) {
  std::vector<MemoryNeed> needs;
  for (size_t i = 0; i < plan.weights.size(); ++i) {
    const std::string what = fmt::format("weights, {}", to_string(plan.weights[i].dtype));
    auto it = std::find_if(needs.begin(), needs.end(), [&](const MemoryNeed& need) { return need.what == what; });
    if (it == needs.end()) it = needs.insert(it, {MemoryKind::kWeights, what, 0});
    it->bytes += bytes[i];
  }
  return needs;
}

}  // namespace llorch
