// Named model shapes with random weights, for benches that need no file.
#pragma once

#include <string>
#include <vector>

#include "backend/backend.h"
#include "model/config.h"

namespace llorch {

// Names that shape_config() takes.
std::vector<std::string> shape_names();

// Throws Error listing the names if it is unknown.
ModelConfig shape_config(const std::string& name);

// The plan of a shape with norm weights in f32 and matrices as `types` says: one type for all ("q8_0"), or "q4_k_m",
// llama.cpp's recipe: Q4_K, but Q6_K for the LM head and for attn_v and ffn_down in the first and last eighth of the
// layers and every third between; where columns are no multiple of 256, Q5_0 for Q4_K and Q8_0 for Q6_K. Throws Error
// listing the names if it is unknown.
Plan shape_plan(const ModelConfig& config, const std::string& types, uint32_t context);

// Random weights of moderate size, made tensor by tensor and dropped when closed. Never zeros: they can run faster.
WeightSource random_weights(uint64_t seed);

}  // namespace llorch
