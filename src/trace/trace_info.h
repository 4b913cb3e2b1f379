// Where a trace comes from: all that must be equal, or said, when two are compared.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "trace/traced_step.h"

namespace llorch {

// Stored as the metadata of the SafeTensors file.
struct TraceInfo {
  std::string model;       // its name
  std::string model_hash;  // 16 hex digits, of all tensors' names, types, shapes and bytes
  std::string plan_hash;   // 16 hex digits, plan/hash.h
  std::string backend;     // "cpu"; of outside programs what they call themselves
  std::string device;      // "AMD EPYC 9654 (avx512vnni, 2 threads)"
  std::string numerics;    // "exact", "fast", or "outside"
  std::string kv_dtype;    // "f16"
  std::string build;       // "llorch 0.1.0"
  std::vector<int32_t> tokens;
  uint32_t n_prompt = 0;          // tokens of the prefill; the others are decoded one at a time, given, not sampled
  std::vector<TracedStep> steps;  // in plan order, those that were traced; none: not said (outside)
};

}  // namespace llorch
