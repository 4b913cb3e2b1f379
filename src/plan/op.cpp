#include "plan/op.h"

namespace llorch {
namespace {

struct VerbName {
  std::string_view operator()(const Embed&) const { return "embed"; }
  std::string_view operator()(const RmsNorm&) const { return "rms_norm"; }
  std::string_view operator()(const Linear&) const { return "linear"; }
  std::string_view operator()(const RopeAppend&) const { return "rope_append"; }
  std::string_view operator()(const Attention&) const { return "attention"; }
  std::string_view operator()(const GatedAct&) const { return "gated_act"; }
  std::string_view operator()(const GatherRows&) const { return "gather_rows"; }
};

struct OutputSlot {
  SlotId operator()(const RopeAppend& op) const { return op.qkv; }
  template <typename T>
  SlotId operator()(const T& op) const {
    return op.y;
  }
};

struct InputSlot {
  std::optional<SlotId> operator()(const Embed&) const { return std::nullopt; }
  std::optional<SlotId> operator()(const RmsNorm& op) const { return op.x; }
  std::optional<SlotId> operator()(const Linear& op) const { return op.x; }
  std::optional<SlotId> operator()(const RopeAppend& op) const { return op.qkv; }
  std::optional<SlotId> operator()(const Attention& op) const { return op.qkv; }
  std::optional<SlotId> operator()(const GatedAct& op) const { return op.gate_up; }
  std::optional<SlotId> operator()(const GatherRows& op) const { return op.x; }
};

}  // namespace

std::string_view verb(const Op& op) { return std::visit(VerbName{}, op); }
SlotId output_slot(const Op& op) { return std::visit(OutputSlot{}, op); }
std::optional<SlotId> input_slot(const Op& op) { return std::visit(InputSlot{}, op); }

}  // namespace llorch
