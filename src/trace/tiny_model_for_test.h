// The tiny model on a backend, for tests that trace it.
#pragma once

#include <memory>
#include <vector>

#include "backend/backend.h"
#include "format/checkpoint.h"
#include "model/model.h"
#include "trace/record.h"

namespace llorch::test {

struct TinyModel {
  Checkpoint checkpoint = Checkpoint::open(LLORCH_SOURCE_DIR "/tests/fixtures/tiny-llama");
  Plan plan = load_model(checkpoint, 128).plan;

  WeightSource source() const {
    return {.open = [this](const Weight& w) { return checkpoint.at(w.name); }, .close = [](const Tensor&) {}};
  }
  std::unique_ptr<Program> compile(Backend& backend, const CompileOptions& options = tiny_options()) const {
    return backend.compile(plan, backend.place(plan, source()), options);
  }
  StepSet all_steps() const { return StepSet(plan.steps.size(), true); }

  static CompileOptions tiny_options() {
    return {.kv = {.n_pages = 8, .page_size = 16}, .max_rows = 32, .max_logit_rows = 4, .poison = true};
  }
};

// n tokens of which the last n_decode are decoded.
inline SequenceRun tiny_run(uint32_t n, uint32_t n_decode) {
  SequenceRun run;
  for (uint32_t i = 0; i < n; ++i) run.tokens.push_back(static_cast<int32_t>(3 + i * 7 % 90));
  run.n_prompt = n - n_decode;
  return run;
}

}  // namespace llorch::test
