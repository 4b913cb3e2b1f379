#include "backend/slots.h"

#include <sys/mman.h>

#include <algorithm>
#include <bit>
#include <limits>

#include "backend/memory.h"

namespace llorch {
namespace {
constexpr uint32_t kGuardPattern = 0x5afe5afeu;
constexpr size_t kAlignFloats = 64;
}  // namespace

std::vector<bool> gathered_steps(const Plan& plan) {
  std::vector<bool> gathered(plan.steps.size());
  bool after = false;
  for (size_t i = 0; i < plan.steps.size(); ++i) {
    after = after || std::holds_alternative<GatherRows>(plan.steps[i].op);
    gathered[i] = after;
  }
  return gathered;
}

bool reads_later(const Plan& plan, size_t from, SlotId slot) {
  for (size_t i = from; i < plan.steps.size(); ++i) {
    if (input_slot(plan.steps[i].op) == slot) return true;
    if (output_slot(plan.steps[i].op) == slot) return false;
  }
  return false;
}

void Slots::Free::operator()(float* memory) const { munmap(memory, bytes); }

SlotLayout::SlotLayout(const Plan& plan, const CompileOptions& options) {
  std::vector<size_t> rows(plan.slots.size(), 0);
  const std::vector<bool> gathered = gathered_steps(plan);
  for (size_t i = 0; i < plan.steps.size(); ++i) {
    size_t& r = rows[static_cast<size_t>(output_slot(plan.steps[i].op))];
    r = std::max<size_t>(r, gathered[i] ? options.max_logit_rows : options.max_rows);
  }
  for (size_t i = 0; i < plan.slots.size(); ++i) {
    offsets.push_back(n_floats);
    sizes.push_back(rows[i] * plan.slots[i].width);
    n_floats += (sizes[i] + kGuardFloats + kAlignFloats - 1) / kAlignFloats * kAlignFloats;
  }
  n_floats = std::max<size_t>(n_floats, 1);
}

Slots::Slots(const Plan& plan, const CompileOptions& options) : plan_(plan), layout_(plan, options) {
  const size_t total = layout_.bytes();
  memory_ = allocate(kActivationMemory, total, [total] {
    void* memory = mmap(nullptr, total, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) throw std::bad_alloc();
    return std::unique_ptr<float, Free>(static_cast<float*>(memory), Free{total});
  });
}

void Slots::poison() {
  for (size_t i = 0; i < layout_.offsets.size(); ++i) {
    float* slot = memory_.get() + layout_.offsets[i];
    std::fill_n(slot, layout_.sizes[i], std::numeric_limits<float>::quiet_NaN());
    std::fill_n(slot + layout_.sizes[i], SlotLayout::kGuardFloats, std::bit_cast<float>(kGuardPattern));
  }
}

void Slots::check_guards() const {
  for (size_t i = 0; i < layout_.offsets.size(); ++i) {
    const float* guard = memory_.get() + layout_.offsets[i] + layout_.sizes[i];
    for (size_t k = 0; k < SlotLayout::kGuardFloats; ++k)
      LLORCH_CHECK(std::bit_cast<uint32_t>(guard[k]) == kGuardPattern, "slot {} was written {} floats past its end",
                   plan_.slots[i].name, k + 1);
  }
}

}  // namespace llorch
