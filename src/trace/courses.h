// Ways of running one sequence through a program; none of them may change a bit of what becomes of it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "trace/doctor.h"
#include "trace/examiner.h"

namespace llorch {

// Two sequences of the same length that have no token in common at any position (and, if there are none to follow and
// the vocabulary is large enough, none at all): the one that is watched and the one that keeps it company.
struct CourseTokens {
  std::vector<int32_t> watched, other;
};
CourseTokens course_tokens(const std::vector<int32_t>& given, uint32_t n, uint32_t vocab);

// Batches that run one after another on one program.
struct Course {
  struct Stop {
    Batch batch;
    WatchedRows rows;  // n_rows 0: nothing to compare
  };
  uint32_t page_size = 64;
  std::vector<Stop> stops;
  bool shows_steps = false;  // compare all steps, not only logits of the fused run

  CompileOptions compile_options(DType kv_dtype) const;
};

// The first n tokens in one batch, with all steps shown or as an engine runs it.
Course prefill(const CourseTokens& tokens, uint32_t n, bool shows_steps);

// A check by some courses, each on a program of its own.
struct CourseCheck {
  CheckKind kind;
  std::string name, what;  // what: for the sentence of a check that passed
  std::vector<Course> courses;
};

// The recipe, simplest first, as far as the sequence is long enough.
std::vector<CourseCheck> course_checks(const CourseTokens& tokens);

}  // namespace llorch
