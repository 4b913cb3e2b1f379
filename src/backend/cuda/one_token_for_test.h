// The smallest batch.
#pragma once

#include "backend/backend.h"

namespace llorch {

// The first position of one sequence, whose page is 1, with logits.
inline Batch one_token() {
  Batch batch;
  batch.tokens = {3};
  batch.sequences = {{0, 1, 0, 0, 1}};
  batch.pages = {1};
  batch.logit_rows = {0};
  return batch;
}

}  // namespace llorch
