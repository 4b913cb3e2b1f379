#include "app/isolation_gate.h"

#include <cmath>

#include "app/memory_plan.h"
#include "engine/self_test.h"

namespace llorch {
namespace {

constexpr double kAutoLimitMs = 1000;

double rounded(double ms) { return std::round(ms * 10) / 10; }

}  // namespace

void check_isolation(const LoadedModel& loaded, const EngineOptions& engine, const std::string& mode,
                     const Logger& log) {
  if (mode == "off") return log.info("self-test skipped", {{"reason", "--self-test off"}});
  SelfTestOptions options;
  options.engine = engine;
  if (mode == "auto") options.limit_ms = kAutoLimitMs;
  // fast promises no bits that histories could change: then a program that does stands in, on few pages.
  std::unique_ptr<Program> exact;
  if (loaded.program->options().numerics == Numerics::kFast) {
    exact = loaded.device->compile(loaded.program->plan(), loaded.weights, exact_stand_in(loaded.program->options()));
  }
  const SelfTest result = self_test(
      exact ? *exact : *loaded.program,
      [&](const CompileOptions& compile) {
        return loaded.device->compile(loaded.program->plan(), loaded.weights, compile);
      },
      options);
  if (!result.skipped.empty())
    return log.info("self-test skipped",
                    {{"reason", result.skipped}, {"self_test", mode}, {"estimated_ms", rounded(result.estimated_ms)}});
  log.info("self-test passed", {{"self_test", mode},
                                {"estimated_ms", rounded(result.estimated_ms)},
                                {"duration_ms", rounded(result.ms)},
                                {"same_logits_after", result.histories}});
}

}  // namespace llorch
