// Memory that a device does not have, said once for all backends: for what, how many bytes, and what can be done.
#pragma once

#include <new>
#include <string>

#include "base/error.h"
#include "base/fault.h"

namespace llorch {

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
