// How much of a model is looked at, so that the scalar reference has little enough to do.
#pragma once

#include <cstdint>
#include <string>

#include "plan/plan.h"

namespace llorch {

struct Cut {
  uint32_t n_layers = 0, of_layers = 0;        // the first layers
  uint32_t n_positions = 0, of_positions = 0;  // of the watched sequence
  uint32_t n_whole_positions = 0;              // of a look at all layers, where some are left out; 0: too much to do
};

// Cuts a model until the reference has no more than max_work multiply-adds to do for n_positions rows. Layers all have
// the same verbs and positions have borders: so layers go first, down to one, while fewer than 67 positions (or
// `wanted`) are affordable; at least 5 remain. The look at all layers has 2 to 5 positions, of no more than max_work
// again.
Cut choose_cut(const Plan& plan, uint32_t wanted, uint64_t max_work);

// "all 6 layers at 131 positions", "the first 2 of 30 layers at 70 of 131 positions, all layers at 5".
std::string to_text(const Cut& cut);

}  // namespace llorch
