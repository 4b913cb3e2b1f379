#include "trace/verdict.h"

#include <algorithm>
#include <bit>

namespace llorch {
namespace {

constexpr uint32_t kChunk = 64;  // of softmax (docs/numerics.md); a page holds one at most

// "from position 1 on", "at position 7", "at positions 3 to 9".
std::string positions_text(const Finding& f) {
  if (f.positions.empty()) return "";
  const uint32_t first = f.positions.front(), last = f.positions.back();
  if (f.positions.size() == 1) return fmt::format("at position {}", first);
  if (f.to_the_end) return fmt::format("from position {} on", first);
  return fmt::format("at {} positions from {} to {}", f.positions.size(), first, last);
}

std::string bits_text(float value) { return fmt::format("{} ({:08x})", value, std::bit_cast<uint32_t>(value)); }

// What the first failed check, and those before it that passed, leave as the cause. right_by_itself: every step is,
// when it is fed the reference's inputs.
std::string cause_text(const Check& check, const Finding& f, bool right_by_itself) {
  const bool attends = f.verb == "attention";
  switch (check.kind) {
    case CheckKind::kDevice:
      return "the device does not take the model";
    case CheckKind::kModel:
      return "the model itself";
    case CheckKind::kWeights:
      return "its weights do not lie on the device as in the file";
    case CheckKind::kVerbs:
      return "the step by itself, fed the reference's inputs, though not among its neighbours";
    case CheckKind::kToken:
      if (attends) return "attention to a single position, or what rope_append stored there";
      return right_by_itself ? "not the step itself, which is right when fed the reference's inputs"
                             : "the step itself";
    case CheckKind::kPrefill:
      if (f.verb == "rope_append") return "rotation: its pairs, signs or positions";
      if (attends && f.positions.front() >= kChunk) return "what lies behind 64 positions: chunks of softmax, pages";
      if (attends && !f.to_the_end) return "what a row may see, in a batch of several rows";
      if (attends) return "attention to several positions, or what rope_append stored there";
      return "batches of several rows";
    case CheckKind::kFusion:
      return f.fused.empty() ? "the run without a trace" : fmt::format("its fusion with {}", f.fused);
    case CheckKind::kDecode:
      if (f.verb == "rope_append") return "positions of decoded rows";
      return attends ? "keys and values of earlier batches" : "batches of one row";
    case CheckKind::kChunks:
      if (f.verb == "rope_append") return "positions of the later chunks of a prefill";
      if (f.verb == "gather_rows") return "which rows want logits";
      return attends ? "keys and values of earlier chunks" : "a prefill in chunks";
    case CheckKind::kBorders:
      return "borders of pages";
    case CheckKind::kScatter:
      return "page tables, or what was left in a page that is used again";
    case CheckKind::kCompany:
      return "sequences of one batch are mixed";
    case CheckKind::kLayers:
      return "a layer that the other checks leave out";
    case CheckKind::kSampling:
      return "tokens are not what its logits give";
    case CheckKind::kEngine:
      return "the engine's batches";
    case CheckKind::kHistory:
      return "what ran before";
  }
  return {};
}

std::string verdict_text(const Check& check, const Finding& f, bool right_by_itself) {
  if (check.kind == CheckKind::kModel) return fmt::format("no backend can be right at {}: {}", f.step, f.remark);
  if (check.kind == CheckKind::kSampling) return fmt::format("{}: {}", cause_text(check, f, right_by_itself), f.remark);
  if (f.positions.empty()) {  // nothing was compared: something was thrown, or is wrong before any step
    const std::string what = f.step.empty() ? "no step can be named" : f.step + " failed";
    return fmt::format("{} in the check \"{}\": {}", what, check.name, f.remark);
  }
  std::string text = fmt::format("{} differs from the reference {}: {}", f.step, positions_text(f),
                                 cause_text(check, f, right_by_itself));
  if (!f.elements.empty()) text += "; " + f.elements;
  if (!f.remark.empty()) text += "; " + f.remark;
  return text;
}

// The check of steps by themselves, if it failed.
const Check* failed_by_itself(const Diagnosis& d) {
  const auto found = std::find_if(d.checks.begin(), d.checks.end(),
                                  [](const Check& c) { return c.kind == CheckKind::kVerbs && !c.passed; });
  return found == d.checks.end() ? nullptr : &*found;
}

// What says where: a sequence knows from which position on, and the longest prefill best.
const Check& where(const Diagnosis& d, const Check& cause) {
  const Check* named = nullptr;
  for (const Check& check : d.checks) {
    if (check.passed || !check.finding || check.finding->positions.empty() || check.kind < CheckKind::kToken) continue;
    if (named == nullptr || (check.kind == CheckKind::kPrefill && check.finding->step == named->finding->step &&
                             check.finding->positions.front() == named->finding->positions.front()))
      named = &check;
  }
  return named == nullptr ? cause : *named;
}

}  // namespace

std::string finding_text(const Finding& f) {
  if (f.positions.empty()) return f.remark;
  std::string text = fmt::format("{} differs {} ({} of {} rows), {}: first element {} is {}, expected {}", f.step,
                                 positions_text(f), f.positions.size(), f.n_rows, f.elements, f.first.element,
                                 bits_text(f.first.a), bits_text(f.first.b));
  if (!f.fused.empty()) text += fmt::format("; only when {} is fused", f.fused);
  if (!f.remark.empty()) text += "; " + f.remark;
  return text;
}

bool Diagnosis::healthy() const {
  return std::all_of(checks.begin(), checks.end(), [](const Check& check) { return check.passed; });
}

void conclude(Diagnosis& d) {
  if (d.healthy()) {
    d.verdict = fmt::format("{} gives the reference's bits in all {} checks", d.subject.name, d.checks.size());
    return;
  }
  const Check* by_itself = failed_by_itself(d);
  // What says why: the first that failed; but whole runs say more than steps by themselves.
  const Check* cause = by_itself;
  for (const Check& check : d.checks)
    if (!check.passed && &check != by_itself) {
      cause = &check;
      break;
    }
  const Check* named = cause->kind == CheckKind::kModel ? cause : &where(d, *cause);
  const Finding finding = named->finding.value_or(Finding{});
  d.step = finding.step;
  if (!finding.positions.empty()) d.position = finding.positions.front();
  d.verdict = verdict_text(*cause, finding, by_itself == nullptr);
}

}  // namespace llorch
