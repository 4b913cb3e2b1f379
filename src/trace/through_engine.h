// The watched sequence through a real engine: alone, beside another one, after others.
#pragma once

#include <functional>
#include <vector>

#include "trace/courses.h"
#include "trace/examiner.h"

namespace llorch {

// A check that needs an engine: run() gives what was found.
struct EngineCheck {
  CheckKind kind;
  std::string name, what;
  std::function<std::optional<Finding>()> run;
};

// What all of them need. The referenced objects must outlive the checks.
struct EngineBench {
  std::function<std::unique_ptr<Program>(const CompileOptions&)> compile;
  const Examiner& examiner;
  const CourseTokens& tokens;
  uint32_t context = 0;  // the plan's
  DType kv_dtype = DType::kF16;
  EngineOptions options;
};

// The logits that the engine is given are not the program's but those that make it sample the token that follows in the
// sequence, so that every row can be held against the reference. None if the context has no room to sample.
std::vector<EngineCheck> engine_checks(const EngineBench& bench);

}  // namespace llorch
