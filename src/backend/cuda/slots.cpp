#include "backend/cuda/slots.h"

#include <algorithm>
#include <cstring>

#include "backend/slots.h"

namespace llorch::cuda {
namespace {
constexpr int kNanByte = 0xff;
constexpr int kGuardByte = 0x5a;
constexpr size_t kAlignFloats = 64;
}  // namespace

DeviceSlots::DeviceSlots(const Plan& plan, const CompileOptions& options) : plan_(plan) {
  std::vector<size_t> rows(plan.slots.size(), 0);
  const std::vector<bool> gathered = gathered_steps(plan);
  for (size_t i = 0; i < plan.steps.size(); ++i) {
    size_t& r = rows[static_cast<size_t>(output_slot(plan.steps[i].op))];
    r = std::max<size_t>(r, gathered[i] ? options.max_logit_rows : options.max_rows);
  }
  size_t n_floats = 0;
  for (size_t i = 0; i < plan.slots.size(); ++i) {
    offsets_.push_back(n_floats);
    sizes_.push_back(rows[i] * plan.slots[i].width);
    n_floats += (sizes_[i] + kGuardFloats + kAlignFloats - 1) / kAlignFloats * kAlignFloats;
  }
  memory_ = DeviceArray<float>(kActivationMemory, std::max<size_t>(n_floats, 1));
}

void DeviceSlots::poison(const Stream& stream) {
  stream.fill_bytes(memory_.data(), kNanByte, memory_.bytes());
  for (size_t i = 0; i < offsets_.size(); ++i)
    stream.fill_bytes(memory_.data() + offsets_[i] + sizes_[i], kGuardByte, kGuardFloats * sizeof(float));
}

void DeviceSlots::check_guards(const Stream& stream) const {
  std::vector<uint8_t> guards(offsets_.size() * kGuardFloats * sizeof(float));
  for (size_t i = 0; i < offsets_.size(); ++i)
    stream.to_host(reinterpret_cast<float*>(guards.data()) + i * kGuardFloats, memory_.data() + offsets_[i] + sizes_[i],
                   kGuardFloats);
  stream.synchronize();
  for (size_t i = 0; i < guards.size(); ++i)
    LLORCH_CHECK(guards[i] == kGuardByte, "slot {} was written {} bytes past its end",
                 plan_.slots[i / (kGuardFloats * sizeof(float))].name, i % (kGuardFloats * sizeof(float)) + 1);
}

}  // namespace llorch::cuda
