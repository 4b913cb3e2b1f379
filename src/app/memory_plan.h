// What a model will take of the memory where it runs: chosen and checked before anything is loaded.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "app/load.h"
#include "app/memory.h"

namespace llorch {

// Where a model is to run, or would: a backend's device need not be there.
struct MemoryPlace {
  BackendInfo backend;
  std::function<std::vector<MemoryNeed>(const Plan&, const CompileOptions&)> needs;
  std::optional<DeviceMemory> memory;    // nothing: nobody knows
  bool is_system = false;                // it is that of the system
  Numerics numerics = Numerics::kExact;  // in which it is to run
};
MemoryPlace place_of(const Backend& backend);

// If these flags ask for cuda, which is built in and has no such device here.
std::optional<MemoryPlace> place_without_device(const LoadOptions& options);

struct MemoryPlan {
  uint32_t context = 0;
  CompileOptions compile;
  std::vector<MemoryNeed> needs;
  uint64_t page_bytes = 0;
  std::optional<uint64_t> pages_that_fit;  // beside all else; nothing: nobody knows
};

// A program of the same options that is exact, on few pages: what the self-test asks where fast promises no bits.
CompileOptions exact_stand_in(CompileOptions options);

// shape: a plan whose rotation table may have any length, of a model that was made for model_context positions. Throws
// what check_memory() throws, and InputError if one sequence has no room or a flag does not belong here.
MemoryPlan plan_memory(const LoadOptions& options, Plan shape, uint32_t model_context, const MemoryPlace& place);

// Throws a CodedError of VRAM_OOM with what is needed and what is free, if that is less.
void check_memory(const std::vector<MemoryNeed>& needs, const MemoryPlace& place);

// Both as a table.
std::string to_text(const MemoryPlan& plan, const MemoryPlace& place);

}  // namespace llorch
