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

// The plan of a shape with all matrices in one dtype and norm weights in f32.
Plan shape_plan(const ModelConfig& config, DType dtype, uint32_t context);

// Random weights of moderate size, made tensor by tensor and dropped when closed. Never zeros: they can run faster.
WeightSource random_weights(uint64_t seed);

}  // namespace llorch
