#include "backend/cuda/slots.h"

namespace llorch::cuda {
namespace {
constexpr int kNanByte = 0xff;
constexpr int kGuardByte = 0x5a;
constexpr size_t kGuardFloats = SlotLayout::kGuardFloats;
}  // namespace

DeviceSlots::DeviceSlots(const Plan& plan, const CompileOptions& options)
    : plan_(plan), layout_(plan, options), memory_(kActivationMemory, layout_.n_floats) {}

void DeviceSlots::poison(const Stream& stream) {
  stream.fill_bytes(memory_.data(), kNanByte, memory_.bytes());
  for (size_t i = 0; i < layout_.offsets.size(); ++i)
    stream.fill_bytes(memory_.data() + layout_.offsets[i] + layout_.sizes[i], kGuardByte, kGuardFloats * sizeof(float));
}

void DeviceSlots::check_guards(const Stream& stream) const {
  std::vector<uint8_t> guards(layout_.offsets.size() * kGuardFloats * sizeof(float));
  for (size_t i = 0; i < layout_.offsets.size(); ++i)
    stream.to_host(reinterpret_cast<float*>(guards.data()) + i * kGuardFloats,
                   memory_.data() + layout_.offsets[i] + layout_.sizes[i], kGuardFloats);
  stream.synchronize();
  for (size_t i = 0; i < guards.size(); ++i)
    LLORCH_CHECK(guards[i] == kGuardByte, "slot {} was written {} bytes past its end",
                 plan_.slots[i / (kGuardFloats * sizeof(float))].name, i % (kGuardFloats * sizeof(float)) + 1);
}

}  // namespace llorch::cuda
