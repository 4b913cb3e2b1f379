#include "trace/examiner.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "backend/slots.h"

namespace llorch {
namespace {

std::string range(std::string_view what, uint32_t first, uint32_t last) {
  return first == last ? fmt::format("{} {}", what, first) : fmt::format("{}s {} to {}", what, first, last);
}

std::string heads_text(const Heads& heads, bool is_qkv, uint32_t first, uint32_t last) {
  const uint32_t head = first / heads.head_dim, last_head = last / heads.head_dim;
  if (!is_qkv) return range("head", head, last_head);
  struct Part {
    const char* name;
    uint32_t begin, end;
  };
  const uint32_t q = heads.n_heads, k = q + heads.n_kv_heads, v = k + heads.n_kv_heads;
  std::string text;
  for (const Part& part : {Part{"q head", 0, q}, Part{"k head", q, k}, Part{"v head", k, v}}) {
    const uint32_t from = std::max(head, part.begin), to = std::min(last_head + 1, part.end);
    if (from < to) text += (text.empty() ? "" : ", ") + range(part.name, from - part.begin, to - 1 - part.begin);
  }
  return text;
}

std::string weights_text(const Plan& plan, const Linear& op, uint32_t first, uint32_t last) {
  std::string text;
  uint32_t begin = 0;
  for (const WeightId id : op.weights) {
    const Weight& weight = plan.weight(id);
    const auto end = begin + static_cast<uint32_t>(weight.shape[0]);
    const uint32_t from = std::max(first, begin), to = std::min(last + 1, end);
    if (from < to)
      text += fmt::format("{}{} of {} ({})", text.empty() ? "" : ", ", range("row", from - begin, to - 1 - begin),
                          weight.name, to_string(weight.dtype));
    begin = end;
  }
  return text;
}

Finding finding_at(const Step& step) {
  Finding finding;
  finding.step = step.name;
  finding.verb = verb(step.op);
  return finding;
}

}  // namespace

std::string elements_text(const Plan& plan, const Step& step, uint32_t first, uint32_t last) {
  if (const auto* linear = std::get_if<Linear>(&step.op)) return weights_text(plan, *linear, first, last);
  if (std::holds_alternative<RopeAppend>(step.op)) return heads_text(plan.heads, true, first, last);
  if (std::holds_alternative<Attention>(step.op)) return heads_text(plan.heads, false, first, last);
  return range("element", first, last);
}

bool same_bits(float a, float b) {
  return std::bit_cast<uint32_t>(a) == std::bit_cast<uint32_t>(b) || (std::isnan(a) && std::isnan(b));
}

const Step& first_reader(const Plan& plan, WeightId id) {
  const auto reads = [&](const Step& step) {
    if (const auto* embed = std::get_if<Embed>(&step.op)) return embed->table == id;
    if (const auto* norm = std::get_if<RmsNorm>(&step.op)) return norm->weight == id;
    const auto* linear = std::get_if<Linear>(&step.op);
    const auto among = [&](const std::vector<WeightId>& ids) { return std::count(ids.begin(), ids.end(), id) > 0; };
    return linear != nullptr && (among(linear->weights) || among(linear->biases));
  };
  const auto reader = std::find_if(plan.steps.begin(), plan.steps.end(), reads);
  LLORCH_CHECK(reader != plan.steps.end(), "no step reads weight {}", plan.weight(id).name);
  return *reader;
}

Finding finding_of_exception() {
  Finding finding;
  try {
    throw;
  } catch (const StepError& error) {
    finding.step = error.failure().step;
    finding.verb = error.failure().verb;
    finding.remark = with_causes(error);
  } catch (const std::exception& error) {
    finding.remark = with_causes(error);
  } catch (...) {
    finding.remark = "an exception of unknown type";
  }
  return finding;
}

std::optional<Finding> find_in(const std::function<std::optional<Finding>()>& examine) {
  try {
    return examine();
  } catch (...) {
    return finding_of_exception();
  }
}

Examiner::Examiner(const Plan& plan, const Recording& truth)
    : plan_(plan), truth_(truth), gathered_(gathered_steps(plan)) {}

std::optional<Finding> Examiner::trace(Program& program, const Batch& batch, const WatchedRows& rows) const {
  return first_difference(program, batch, rows, StepSet(plan_.steps.size(), true));
}

std::optional<Finding> Examiner::run(Program& program, const Batch& batch, const WatchedRows& rows) const {
  return explain(program, batch, rows, program.run(batch));
}

std::optional<Finding> Examiner::explain(Program& program, const Batch& batch, const WatchedRows& rows,
                                         std::span<const float> logits) const {
  if (!logits_differ(logits, batch, rows)) return std::nullopt;
  if (auto found = trace(program, batch, rows)) return found;
  if (!logits_differ(program.run(batch), batch, rows)) {
    Finding finding;
    finding.remark =
        "the same batch gave other logits when it ran again: memory is read before it is written, or threads "
        "race";
    return finding;
  }
  return find_fusion(program, batch, rows);
}

// All steps shown is right, none shown is wrong. So there is a step whose hiding, with all before it hidden, does it.
std::optional<Finding> Examiner::find_fusion(Program& program, const Batch& batch, const WatchedRows& rows) const {
  const size_t n = plan_.steps.size();
  const auto show_from = [&](size_t k) {  // the logits always: what is compared when nothing else is shown
    StepSet shown(n, true);
    std::fill(shown.begin(), shown.begin() + static_cast<ptrdiff_t>(k), false);
    shown.back() = true;
    return first_difference(program, batch, rows, shown);
  };
  size_t right = 0, wrong = n - 1;
  std::optional<Finding> found = show_from(wrong);
  if (!found) {
    Finding finding = finding_at(plan_.steps.back());
    finding.remark = "right whenever an output is shown, wrong when none is";
    return finding;
  }
  while (wrong - right > 1) {
    const size_t middle = right + (wrong - right) / 2;
    if (auto difference = show_from(middle)) {
      wrong = middle;
      found = std::move(difference);
    } else {
      right = middle;
    }
  }
  found->fused = plan_.steps[right].name;
  return found;
}

void Examiner::extend(Program& program, const Batch& batch, const WatchedRows& rows, Finding& finding) const {
  const int step = plan_.find_step(finding.step);
  if (step < 0 || !finding.fused.empty()) return;
  StepSet shown(plan_.steps.size());
  shown[static_cast<size_t>(step)] = true;
  program.trace(batch, shown, [&](size_t i, std::span<const float> output) {
    const Finding more = compare(i, output, batch, rows);
    finding.n_rows += more.n_rows;
    finding.to_the_end = finding.to_the_end && more.positions.size() == more.n_rows;
    finding.positions.insert(finding.positions.end(), more.positions.begin(), more.positions.end());
  });
}

bool Examiner::logits_differ(std::span<const float> logits, const Batch& batch, const WatchedRows& rows) const {
  return !compare(plan_.steps.size() - 1, logits, batch, rows).positions.empty();
}

std::optional<Finding> Examiner::first_difference(Program& program, const Batch& batch, const WatchedRows& rows,
                                                  const StepSet& shown) const {
  std::optional<Finding> found;
  try {
    program.trace(batch, shown, [&](size_t step, std::span<const float> output) {
      if (found) return;
      Finding finding = compare(step, output, batch, rows);
      if (!finding.positions.empty()) found = std::move(finding);
    });
  } catch (const std::exception& error) {
    if (!found) throw;
    found->remark = with_causes(error);  // what came of it later
  }
  return found;
}

Finding Examiner::compare(size_t step, std::span<const float> output, const Batch& batch,
                          const WatchedRows& rows) const {
  const Step& s = plan_.steps[step];
  const uint32_t width = plan_.slot(output_slot(s.op)).width;
  const std::vector<float>& truth = truth_.steps[step].values;
  const auto n_rows = gathered_[step] ? static_cast<uint32_t>(batch.logit_rows.size()) : batch.rows();
  LLORCH_CHECK(output.size() == size_t{n_rows} * width, "{}: {} values of [{}, {}]", s.name, output.size(), n_rows,
               width);
  Finding finding = finding_at(s);
  finding.to_the_end = true;
  uint32_t first_element = width, last_element = 0;
  for (uint32_t i = 0; i < n_rows; ++i) {
    const uint32_t row = gathered_[step] ? batch.logit_rows[i] : i;
    if (row < rows.first_row || row >= rows.first_row + rows.n_rows) continue;
    ++finding.n_rows;
    const uint32_t position = rows.first_position + row - rows.first_row;
    const float* got = &output[size_t{i} * width];
    const float* want = &truth[size_t{position} * width];
    bool differs = false;
    for (uint32_t e = 0; e < width; ++e) {
      if (same_bits(got[e], want[e])) continue;
      if (finding.positions.empty() && !differs) finding.first = {position, e, got[e], want[e]};
      differs = true;
      first_element = std::min(first_element, e);
      last_element = std::max(last_element, e);
    }
    if (differs)
      finding.positions.push_back(position);
    else if (!finding.positions.empty())
      finding.to_the_end = false;
  }
  if (!finding.positions.empty()) finding.elements = elements_text(plan_, s, first_element, last_element);
  return finding;
}

}  // namespace llorch
