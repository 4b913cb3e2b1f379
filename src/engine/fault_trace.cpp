#include "engine/fault_trace.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "backend/slots.h"
#include "engine/request_failure.h"

namespace llorch {
namespace {

// The first value that should not be there.
struct Origin {
  size_t step = 0;
  uint32_t rows = 0;      // of the step
  uint32_t position = 0;  // of its row
  uint32_t element = 0;   // in the row; 0 for a constant row
  float value = 0.0f;
};

const char* name_of(float value) {
  return std::isnan(value) ? "NaN" : std::isinf(value) ? "infinity" : "a constant row";
}

// The first element that is not finite; a constant row counts as its first element. Nothing if the row is sound.
std::optional<uint32_t> bad_element(std::span<const float> row, LogitsFault fault) {
  const LogitsFault found = check_logits(row);
  if (fault == LogitsFault::kAllEqual) return found == fault ? std::optional<uint32_t>(0) : std::nullopt;
  if (found != LogitsFault::kNan && found != LogitsFault::kInfinite) return std::nullopt;
  const auto at = std::find_if(row.begin(), row.end(), [](float x) { return !std::isfinite(x); });
  return static_cast<uint32_t>(at - row.begin());
}

// Positions [first, first + n_rows) of a sequence, alone.
Batch batch_of(const Sequence& sequence, uint32_t first, uint32_t n_rows) {
  Batch batch;
  const auto begin = sequence.tokens.begin() + first;
  batch.tokens.assign(begin, begin + n_rows);
  batch.sequences.push_back({0, n_rows, first, 0, static_cast<uint32_t>(sequence.pages.size())});
  batch.pages = sequence.pages;
  if (first + n_rows == sequence.n_tokens()) batch.logit_rows.push_back(n_rows - 1);
  return batch;
}

// A fault of values may begin at any position; that of equal logits is looked for where they are, because other rows
// may be constant by right (an id whose embedding is zero).
std::optional<Origin> find_origin(Program& program, LogitsFault fault, const Sequence& sequence) {
  const Plan& plan = program.plan();
  const std::vector<bool> gathered = gathered_steps(plan);
  const uint32_t n = sequence.n_tokens(), most = program.options().max_rows;
  const uint32_t first_looked_at = fault == LogitsFault::kAllEqual ? n - 1 : 0;
  std::optional<Origin> origin;
  for (uint32_t done = 0; done < n && !origin; done += most) {
    const uint32_t rows = std::min(most, n - done);
    program.trace(batch_of(sequence, done, rows), StepSet(plan.steps.size(), true),
                  [&](size_t step, std::span<const float> output) {
                    if (origin) return;  // to run on costs less than to stop a backend in the middle
                    const size_t width = plan.slot(output_slot(plan.steps[step].op)).width;
                    const auto step_rows = static_cast<uint32_t>(output.size() / width);
                    const uint32_t first_position = gathered[step] ? n - 1 : done;
                    for (uint32_t r = 0; r < step_rows; ++r) {
                      const uint32_t position = first_position + r;
                      if (position < first_looked_at) continue;
                      const auto row = output.subspan(r * width, width);
                      if (const auto element = bad_element(row, fault)) {
                        origin = Origin{step, step_rows, position, *element, row[*element]};
                        return;
                      }
                    }
                  });
  }
  return origin;
}

struct WeightRow {
  WeightId weight;
  int64_t row;
};

// The rows of weights that an element of a step's output is made of; all of a constant row's.
std::vector<WeightRow> rows_read(const Plan& plan, const Op& op, int32_t token, std::optional<uint32_t> element) {
  std::vector<WeightRow> rows;
  if (const auto* embed = std::get_if<Embed>(&op)) rows.push_back({embed->table, token});
  if (const auto* norm = std::get_if<RmsNorm>(&op)) rows.push_back({norm->weight, 0});
  if (const auto* linear = std::get_if<Linear>(&op)) {
    int64_t begin = 0;  // of the stacked weight's elements in the output
    for (size_t i = 0; i < linear->weights.size(); ++i) {
      const int64_t n = plan.weight(linear->weights[i]).shape[0];
      for (int64_t row = 0; row < n; ++row)
        if (!element || begin + row == *element) rows.push_back({linear->weights[i], row});
      if (!linear->biases.empty() && (!element || (*element >= begin && *element < begin + n)))
        rows.push_back({linear->biases[i], 0});
      begin += n;
    }
  }
  return rows;
}

// A row of the embedding's table is a token of a prompt, and those are never told.
std::string place(const Weight& weight, const Op& op, int64_t row, int64_t column) {
  if (weight.shape.size() < 2) return fmt::format("{} at element {}", weight.name, column);
  if (std::holds_alternative<Embed>(op)) return fmt::format("{} at column {} of the token's row", weight.name, column);
  return fmt::format("{} at row {}, column {}", weight.name, row, column);
}

// Why a step gave a value that is not finite: all that feeds it is finite, so the weights are to blame, or it is.
std::string cause_of_value(const Program& program, const Op& op, const Origin& origin, int32_t token) {
  const Plan& plan = program.plan();
  float largest = 0.0f;
  std::string where;
  for (const WeightRow& read : rows_read(plan, op, token, origin.element)) {
    const Weight& weight = plan.weight(read.weight);
    std::vector<float> row(static_cast<size_t>(weight.shape.back()));
    program.weights().read_row(read.weight, read.row, row.data());
    for (size_t i = 0; i < row.size(); ++i) {
      const auto column = static_cast<int64_t>(i);
      if (!std::isfinite(row[i]))
        return fmt::format("weight {} is {}", place(weight, op, read.row, column), name_of(row[i]));
      if (std::fabs(row[i]) <= largest) continue;
      largest = std::fabs(row[i]);
      where = place(weight, op, read.row, column);
    }
  }
  if (where.empty()) return "its inputs are finite, so it overflows or its arithmetic is at fault";
  if (std::holds_alternative<Embed>(op))  // a value would tell the row
    return "its table's row is finite, so it overflows or its arithmetic is at fault";
  return fmt::format(
      "its inputs and weights are finite, so it overflows or its arithmetic is at fault; the largest weight that it "
      "reads there is {:g}, {}",
      largest, where);
}

std::string cause_of_constant_row(const Program& program, const Op& op, int32_t token) {
  const Plan& plan = program.plan();
  const std::vector<WeightRow> rows = rows_read(plan, op, token, std::nullopt);
  for (const WeightRow& read : rows) {
    std::vector<float> row(static_cast<size_t>(plan.weight(read.weight).shape.back()));
    program.weights().read_row(read.weight, read.row, row.data());
    if (std::any_of(row.begin(), row.end(), [](float x) { return x != 0.0f; }))
      return "its input differs between elements, and its weights are not all zero";
  }
  return rows.empty() ? "it reads no weights" : "all weights that it reads are zero";
}

}  // namespace

FailEvent trace_fault(Program& program, LogitsFault fault, const Sequence& sequence, const std::string& device) {
  FailEvent event;
  event.code = ErrorCode::kNumericFault;
  event.position = sequence.n_tokens() - 1;
  event.kv_len = sequence.n_tokens();
  event.message = fmt::format("The logits at position {} {}.", event.position, to_string(fault));
  std::optional<Origin> origin;
  try {
    origin = find_origin(program, fault, sequence);
  } catch (const std::exception& error) {
    const FailEvent again = failure_of(error, ErrorCode::kInferenceFailed);
    event.causes = {"computing the sequence again failed", again.message};
    event.causes.insert(event.causes.end(), again.causes.begin(), again.causes.end());
    return event;
  }
  if (!origin) {
    event.causes = {"when the sequence was computed again this did not occur"};
    return event;
  }
  const Plan& plan = program.plan();
  const Step& step = plan.steps[origin->step];
  const int32_t token = sequence.tokens[origin->position];
  const bool is_constant = fault == LogitsFault::kAllEqual;
  event.causes = {
      fmt::format("the first step that gives {} is {}, at position {}{}", name_of(origin->value), step.name,
                  origin->position, is_constant ? "" : fmt::format(", element {}", origin->element)),
      is_constant ? cause_of_constant_row(program, step.op, token) : cause_of_value(program, step.op, *origin, token)};
  event.position = origin->position;
  event.step = describe_step(plan, origin->step, origin->rows, device);
  return event;
}

}  // namespace llorch
