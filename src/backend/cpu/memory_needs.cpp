// What a model takes of the system's memory on the CPU.
#include "backend/cpu/program.h"

namespace llorch::cpu {

uint32_t widest_input(const Plan& plan) {
  uint32_t widest = 0;
  for (const Step& step : plan.steps)
    if (const auto* linear = std::get_if<Linear>(&step.op)) widest = std::max(widest, plan.slot(linear->x).width);
  return widest;
}

size_t packed_bytes(uint32_t rows, uint32_t widest) { return size_t{rows} * widest * sizeof(float) * 2; }

std::vector<MemoryNeed> memory_needs(const Plan& plan, const CompileOptions& options, int n_threads) {
  std::vector<size_t> bytes;
  for (const Weight& weight : plan.weights) bytes.push_back(placed_bytes(weight));
  std::vector<MemoryNeed> needs = weight_needs(plan, bytes);
  const uint32_t widest = widest_input(plan), rows = std::max(options.max_rows, options.max_logit_rows);
  const size_t of_thread = size_t{kMaxTileRows} * widest * sizeof(float);
  needs.push_back({MemoryKind::kActivations, "slots", SlotLayout(plan, options).bytes()});
  needs.push_back({MemoryKind::kActivations, "packed rows, and those of threads",
                   packed_bytes(rows, widest) + static_cast<size_t>(n_threads) * of_thread});
  needs.push_back({MemoryKind::kKv, "KV pages", uint64_t{options.kv.n_pages} * kv_page_bytes(plan, options.kv)});
  return needs;
}

}  // namespace llorch::cpu
