// Whether what a program draws from its logits is what the host's sampler draws, step by step and a step ahead.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "trace/courses.h"
#include "trace/doctor.h"

namespace llorch {

// Two sequences draw their own tokens, so that nothing here needs the reference: the check, the hash and the token of
// each row of sample() against a Sampler's of the same rows of run(); then the same steps, started before the ones
// before them have finished, where the program takes so many. compile: programs for these options.
std::optional<Finding> examine_sampling(const std::function<std::unique_ptr<Program>(const CompileOptions&)>& compile,
                                        const CourseTokens& tokens, DType kv_dtype);

// "tokens of 12 steps of two sequences, drawn one by one and, where it can, a step ahead".
std::string sampling_text(const Plan& plan);

}  // namespace llorch
