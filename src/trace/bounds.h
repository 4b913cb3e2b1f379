// How far a step may be from `exact` on a side that promises no bits. Derived and measured in docs/numerics.md.
#pragma once

#include <cstdint>

#include "tensor/dtype.h"
#include "trace/trace_info.h"

namespace llorch {

// What decides the bounds, of the two sides and of the model.
struct BoundConditions {
  bool fast = false;             // products of 16 bits; otherwise float32 or better
  bool f16_kv = true;            // a side rounds keys and values
  DType coarsest = DType::kF32;  // of the matrices: the one whose products are the least exact
  uint32_t n_layers = 0, n_positions = 0;
};

// Of two traces, of which `exact` is the one that is. What no step of theirs tells is taken to be the worst.
BoundConditions bound_conditions(const TraceInfo& exact, const TraceInfo& other);

// NMSE of a step that was fed the same inputs.
double own_bound(const TracedStep& step, const BoundConditions& conditions);

// NMSE of a step in a whole run: what all steps up to it add, of which each passes on what it was fed. Steps are known
// by the names that families give them; any other in a layer counts as its last.
double run_bound(const TracedStep& step, const BoundConditions& conditions);

}  // namespace llorch
