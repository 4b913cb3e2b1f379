#include "trace/doctor.h"

#include <algorithm>
#include <chrono>
#include <functional>

#include "trace/by_itself.h"
#include "trace/courses.h"
#include "trace/examiner.h"
#include "trace/excerpt.h"
#include "trace/model_check.h"
#include "trace/sampling_check.h"
#include "trace/through_engine.h"
#include "trace/verdict.h"

namespace llorch {
namespace {

// A plan with what the reference makes of the watched sequence's first positions.
struct Ground {
  Plan plan;
  std::shared_ptr<const PlacedWeights> weights;
  Recording truth;  // all steps at all positions, logits too
};

Ground lay_ground(Backend& reference, const Plan& plan, const WeightSource& source, std::vector<int32_t> tokens,
                  DType kv_dtype) {
  KvShape kv{.dtype = kv_dtype};
  kv.n_pages = (static_cast<uint32_t>(tokens.size()) + kv.page_size - 1) / kv.page_size;
  Ground ground{plan, reference.place(plan, source), {}};
  const auto program = reference.compile(plan, ground.weights, {.kv = kv, .max_rows = 1, .max_logit_rows = 1});
  SequenceRun run;
  run.tokens = std::move(tokens);
  run.n_prompt = 1;  // so that every position has logits
  ground.truth = record_sequence(*program, run, StepSet(plan.steps.size(), true));
  return ground;
}

class Doctor {
 public:
  Doctor(Backend& subject, Backend& reference, const Plan& plan, const WeightSource& source,
         const DoctorOptions& options)
      : subject_(subject),
        reference_(reference),
        plan_(plan),
        source_(source),
        options_(options),
        cut_(choose_cut(plan, options)),
        tokens_(course_tokens(options.tokens, cut_.n_positions, plan.vocab)) {
    diagnosis_.subject = subject.info();
    diagnosis_.reference = reference.info();
    diagnosis_.cut = cut_;
  }

  Diagnosis run() && {
    const Plan plan = first_layers(plan_, cut_.n_layers);
    const auto compile = [&](const CompileOptions& o) { return subject_.compile(plan, weights_, o); };
    check_subject(CheckKind::kDevice, "device", fmt::format("takes {}", to_text(cut_)), [&] {
      weights_ = subject_.place(plan, source_);
      compile({.kv = {.n_pages = 1, .dtype = options_.kv_dtype}, .max_rows = 1, .max_logit_rows = 1});
      return std::nullopt;
    });
    if (diagnosis_.healthy()) look_at(plan, compile);
    conclude(diagnosis_);
    return std::move(diagnosis_);
  }

 private:
  using Run = std::function<std::optional<Finding>()>;
  using Compile = std::function<std::unique_ptr<Program>(const CompileOptions&)>;

  // All checks after the first.
  void look_at(const Plan& plan, const Compile& compile) {
    Ground ground;
    check(CheckKind::kModel, "model", "every weight, and what the reference makes of them, is finite", [&] {
      ground = lay_ground(reference_, plan, source_, tokens_.watched, options_.kv_dtype);
      return find_not_finite(plan_, source_, plan, ground.truth);
    });
    check_subject(CheckKind::kWeights, "weights", "rows of every weight, read back",
                  [&] { return compare_weights(plan, *weights_, *ground.weights); });
    const StepsBench steps{subject_, reference_, plan, source_, tokens_.watched, ground.truth, options_.kv_dtype};
    check_subject(CheckKind::kVerbs, "steps", steps_text(steps), [&] { return examine_steps(steps); });
    const Examiner examiner(plan, ground.truth);
    for (const CourseCheck& c : course_checks(tokens_))
      check_subject(c.kind, c.name, c.what, [&] { return run_courses(c, compile, examiner); });
    if (cut_.n_whole_positions > 0) check_whole();
    check_subject(CheckKind::kSampling, "sampling", sampling_text(plan),
                  [&] { return examine_sampling(compile, tokens_, options_.kv_dtype); });
    const EngineBench bench{.compile = compile,
                            .examiner = examiner,
                            .tokens = tokens_,
                            .context = plan.context(),
                            .kv_dtype = options_.kv_dtype,
                            .options = options_.engine};
    for (const EngineCheck& c : engine_checks(bench)) check_subject(c.kind, c.name, c.what, c.run);
  }

  void check(CheckKind kind, const std::string& name, const std::string& what, const Run& run) {
    const auto begin = std::chrono::steady_clock::now();
    Check check;
    check.kind = kind;
    check.name = name;
    check.finding = run();
    check.passed = !check.finding;
    check.sentence = check.passed ? what : finding_text(*check.finding);
    check.ms = std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - begin).count();
    diagnosis_.checks.push_back(std::move(check));
    if (options_.on_check) options_.on_check(diagnosis_.checks.back());
  }

  // What is thrown is the subject's fault.
  void check_subject(CheckKind kind, const std::string& name, const std::string& what, const Run& run) {
    check(kind, name, what, [&] { return find_in(run); });
  }

  void check_whole() {
    const uint32_t n = cut_.n_whole_positions;
    check(CheckKind::kLayers, "all layers", fmt::format("rows of all weights, all steps of a batch of {}", n), [&] {
      const std::vector<int32_t> tokens(tokens_.watched.begin(), tokens_.watched.begin() + n);
      const Ground ground = lay_ground(reference_, plan_, source_, tokens, options_.kv_dtype);
      return find_in([&]() -> std::optional<Finding> {
        const auto weights = subject_.place(plan_, source_);
        if (auto found = compare_weights(plan_, *weights, *ground.weights)) return found;
        const auto compile = [&](const CompileOptions& o) { return subject_.compile(plan_, weights, o); };
        return run_course(prefill(tokens_, n, true), compile, Examiner(plan_, ground.truth));
      });
    });
  }

  std::optional<Finding> run_courses(const CourseCheck& check, const Compile& compile, const Examiner& examiner) {
    for (const Course& course : check.courses)
      if (auto found = run_course(course, compile, examiner)) return found;
    return std::nullopt;
  }

  std::optional<Finding> run_course(const Course& course, const Compile& compile, const Examiner& examiner) {
    const auto program = compile(course.compile_options(options_.kv_dtype));
    std::optional<Finding> found;
    for (const Course::Stop& stop : course.stops) {
      if (stop.rows.n_rows == 0)
        program->run(stop.batch);
      else if (found)
        examiner.extend(*program, stop.batch, stop.rows, *found);
      else
        found = course.shows_steps ? examiner.trace(*program, stop.batch, stop.rows)
                                   : examiner.run(*program, stop.batch, stop.rows);
    }
    return found;
  }

  Backend &subject_, &reference_;
  const Plan& plan_;  // with all layers
  const WeightSource& source_;
  const DoctorOptions& options_;
  const Cut cut_;
  const CourseTokens tokens_;
  std::shared_ptr<const PlacedWeights> weights_;  // of the cut, on the subject
  Diagnosis diagnosis_;
};

}  // namespace

Cut choose_cut(const Plan& plan, const DoctorOptions& options) {
  if (options.tokens.empty())
    return choose_cut(plan, std::min(options.max_positions, plan.context()), options.max_work);
  SequenceRun run;
  run.tokens = options.tokens;
  run.n_prompt = 1;
  check_run(run, plan, {.kv = {.n_pages = static_cast<uint32_t>(run.tokens.size())}});
  return choose_cut(plan, static_cast<uint32_t>(run.tokens.size()), options.max_work);
}

Diagnosis diagnose(Backend& subject, Backend& reference, const Plan& plan, const WeightSource& source,
                   const DoctorOptions& options) {
  return Doctor(subject, reference, plan, source, options).run();
}

}  // namespace llorch
