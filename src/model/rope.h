// RoPE angles: made once on the host in double precision, rounded once to float.
#pragma once

#include <span>

#include "model/config.h"
#include "plan/plan.h"

namespace llorch {

// Table [context, head_dim / 2]. Entry i of row p is cos/sin of p * frequency_i, with frequency_i =
// theta^(-2i/head_dim) changed by the scaling rule. `factors` (GGUF's rope_freqs.weight, [head_dim / 2]) divide the
// frequencies; empty: none.
RopeTable make_rope_table(const ModelConfig& config, uint32_t context, std::span<const float> factors);

// The frequencies behind the table, [head_dim / 2], in radians per position.
std::vector<double> rope_frequencies(const ModelConfig& config, std::span<const float> factors);

}  // namespace llorch
