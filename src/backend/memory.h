// Memory: what a model needs of it, item by item, and what is said when it is not there.
#pragma once

#include <cstdint>
#include <new>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/fault.h"
#include "plan/plan.h"

namespace llorch {

// In bytes.
struct DeviceMemory {
  uint64_t free = 0, total = 0;
};

enum class MemoryKind : uint8_t {
  kWeights,
  kKv,
  kActivations,  // and all else that a step writes
  kReserve,      // for what the driver takes later
  kHost,         // of the system, beside the device's own
  kLoading       // of both, until the weights are there
};
struct MemoryNeed {
  MemoryKind kind;
  std::string what;
  uint64_t bytes;
};

uint64_t bytes_of(const std::vector<MemoryNeed>& needs, MemoryKind kind);

// Of the memory where the weights are: all but kHost and kLoading.
uint64_t device_bytes(const std::vector<MemoryNeed>& needs);

// Bytes that each weight of a plan takes [weights], as one need for each type.
std::vector<MemoryNeed> weight_needs(const Plan& plan, const std::vector<size_t>& bytes);

// A kind of memory that could not be allocated: for what, how many bytes, and what can be done.
struct MemoryUse {
  const char* point;  // where a fault can be injected
  const char* what;
  const char* remedy;
};

inline constexpr MemoryUse kWeightMemory = {"memory.weights", "weights",
                                            "use a smaller model, or one that is quantized more strongly"};
inline constexpr MemoryUse kKvMemory = {"memory.kv", "KV pages", "lower --kv-memory or --ctx"};
inline constexpr MemoryUse kActivationMemory = {"memory.activations", "activations", "lower --max-running"};

// make(), which allocates `bytes` in all. In place of std::bad_alloc a CodedError of VRAM_OOM: use, bytes, remedy.
template <typename Make>
auto allocate(const MemoryUse& use, size_t bytes, Make make) {
  try {
    if (fault(use.point)) throw std::bad_alloc();
    return make();
  } catch (const std::bad_alloc&) {
    throw CodedError(ErrorCode::kVramOom,
                     fmt::format("the {} need {} bytes, which cannot be allocated; {}", use.what, bytes, use.remedy));
  }
}

}  // namespace llorch
