// Where each weight lies in the one piece of device memory that holds them all.
#pragma once

#include <cstddef>
#include <vector>

#include "backend/cuda/kernels.h"
#include "plan/plan.h"

namespace llorch::cuda {

// In bytes from the start of the memory, each a multiple of 256. A matrix: its units and what codes.h names beside
// them; a vector: floats.
struct WeightPlace {
  size_t units = 0, highs = 0, scales = 0, d = 0;
  size_t end = 0;
  size_t bytes() const { return end - units; }
};

struct WeightLayout {
  explicit WeightLayout(const Plan& plan);
  std::vector<WeightPlace> places;  // [weights], one behind another
  size_t bytes = 0;
};

// A matrix of the plan that lies there.
MatrixView matrix_at(std::byte* memory, const Weight& weight, const WeightPlace& place);

// Whether groups and segments have parts that no row or column fills, and no kernel writes: they must be zero.
bool has_padding(const Weight& weight);

}  // namespace llorch::cuda
