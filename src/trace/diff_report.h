// What a comparison of two traces found, step by step: made by diff.h, shown as text, JSON and HTML.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "trace/trace_info.h"

namespace llorch {

// One element of a step's output.
struct ElementAddress {
  uint32_t position = 0;  // of the row's token in its sequence
  uint32_t element = 0;   // in the row
  float a = 0.0f, b = 0.0f;
};

struct StepDiff {
  std::string step, verb, dtype, text;  // as in TracedStep; empty where no side says them
  uint32_t first_position = 0;          // of the first row; the others follow
  uint32_t rows = 0, width = 0;
  bool equal = false;         // all bits; any NaN equals any NaN
  bool within_bound = false;  // the same where bits are promised; otherwise nmse <= bound
  double bound = 0.0;         // NMSE; 0 where bits are promised
  uint64_t n_differ = 0;      // elements whose bits differ
  double max_abs = 0.0;       // of a - b
  double nmse = 0.0;          // sum (a - b)^2 / sum b^2
  double cosine = 1.0;
  uint64_t ulp_median = 0;  // of the elements that differ
  std::optional<ElementAddress> first_difference, largest_difference, first_nan;
  std::optional<uint32_t> argmax_agree;  // logits: rows whose largest element is the same one
  std::vector<double> nmse_by_row;       // [rows], for pictures
};

// a is looked at, b is what it is held against.
struct DiffReport {
  std::string name_a, name_b;  // as the caller calls them: a file, a backend
  TraceInfo a, b;
  bool exact = false;                       // both sides promise the reference's bits
  bool local = false;                       // each step of a was fed b's inputs
  std::vector<StepDiff> steps;              // in plan order, those that both have
  std::vector<std::string> only_a, only_b;  // steps that one side lacks
  int first = -1;                           // index of the first step that is not within its bound

  bool same() const { return first < 0; }
};

}  // namespace llorch
