#include "backend/cuda/scratch.h"

#include <algorithm>

#include "backend/cuda/kernels.h"

namespace llorch::cuda {
namespace {

// Memory for attention's chunks when blocks share a tile, and the tiles that may.
constexpr size_t kMaxPartialBytes = size_t{64} << 20;
constexpr uint32_t kMaxSplitTiles = 16;

}  // namespace

uint32_t heads_per_tile(const Plan& plan) {
  return plan.n_layers == 0 ? 1 : std::min<uint32_t>(plan.heads.n_heads / plan.heads.n_kv_heads, kMaxQueries);
}

uint32_t kv_tiles(const Plan& plan) {
  const Heads& h = plan.heads;
  return h.n_kv_heads * static_cast<uint32_t>(divide_up(h.n_heads / h.n_kv_heads, heads_per_tile(plan)));
}

bool uses(const Plan& plan, const Linear& op, bool quantized) {
  return std::any_of(op.weights.begin(), op.weights.end(),
                     [&](WeightId id) { return is_quantized(plan.weight(id).dtype) == quantized; });
}

ScratchSizes::ScratchSizes(const Plan& plan, const CompileOptions& options) {
  size_t widest = 0;
  for (const Step& step : plan.steps) {
    const auto* linear = std::get_if<Linear>(&step.op);
    if (linear != nullptr && uses(plan, *linear, true)) widest = std::max<size_t>(widest, plan.slot(linear->x).width);
  }
  packed = std::max(options.max_rows, options.max_logit_rows) * widest;
  packed_blocks = packed / kQuantBlock;
  if (plan.n_layers == 0) return;
  const size_t chunks = static_cast<size_t>(divide_up(plan.context(), kChunk));
  const size_t of_tile = kv_tiles(plan) * chunks * kMaxQueries * (plan.heads.head_dim + 2);
  const size_t room = kMaxPartialBytes / sizeof(float) / of_tile;
  max_split_tiles = static_cast<uint32_t>(std::min<size_t>({room, kMaxSplitTiles, options.max_rows}));
  attention_partial = max_split_tiles * of_tile;
  attention_arrivals = size_t{max_split_tiles} * plan.heads.n_heads;
}

size_t ScratchSizes::bytes() const {
  return kPacked * (packed * sizeof(int16_t) + packed_blocks * (sizeof(float) + sizeof(int32_t))) +
         attention_partial * sizeof(float) + attention_arrivals * sizeof(unsigned);
}

}  // namespace llorch::cuda
