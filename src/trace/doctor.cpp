#include "trace/doctor.h"

#include <algorithm>
#include <chrono>
#include <functional>
#include <set>

#include "trace/courses.h"
#include "trace/examiner.h"
#include "trace/excerpt.h"
#include "trace/through_engine.h"
#include "trace/verdict.h"

namespace llorch {
namespace {

// Positions that a large model keeps: across a page of 16 twice, and one more.
constexpr uint32_t kFewPositions = 33;

// What of a model is looked at, so that the reference has no more than max_work to do.
struct Cut {
  Plan plan;
  uint32_t n_positions;
};

Cut cut_to_size(const Plan& plan, const DoctorOptions& options) {
  const auto given = options.tokens.empty() ? UINT32_MAX : static_cast<uint32_t>(options.tokens.size());
  const uint32_t wanted = std::min({options.max_positions, plan.context(), given});
  const auto affordable = [&](const Plan& p) { return options.max_work / std::max<uint64_t>(work_of_row(p), 1); };
  Cut cut{plan, wanted};
  while (affordable(cut.plan) < std::min(wanted, kFewPositions) && cut.plan.n_layers > 1)
    cut.plan = first_layers(plan, (cut.plan.n_layers + 1) / 2);
  cut.n_positions = static_cast<uint32_t>(std::clamp<uint64_t>(affordable(cut.plan), std::min(wanted, 5u), wanted));
  return cut;
}

std::string dtypes_text(const Plan& plan) {
  std::set<std::string_view> names;
  for (const Weight& weight : plan.weights) names.insert(to_string(weight.dtype));
  return fmt::format("{}", fmt::join(names, ", "));
}

class Doctor {
 public:
  Doctor(Backend& subject, Backend& reference, const Plan& plan, const WeightSource& source,
         const DoctorOptions& options)
      : subject_(subject),
        source_(source),
        options_(options),
        full_(plan),
        cut_(cut_to_size(plan, options)),
        tokens_(course_tokens(options.tokens, cut_.n_positions, plan.vocab)) {
    diagnosis_.subject = subject.info();
    diagnosis_.reference = reference.info();
    const auto weights = reference.place(cut_.plan, source);
    KvShape kv{.dtype = options.kv_dtype};
    kv.n_pages = (cut_.n_positions + kv.page_size - 1) / kv.page_size;
    const auto program = reference.compile(cut_.plan, weights, {.kv = kv, .max_rows = 1, .max_logit_rows = 1});
    SequenceRun run;
    run.tokens = tokens_.watched;
    run.n_prompt = 1;  // so that every position has logits
    truth_ = record_sequence(*program, run, StepSet(cut_.plan.steps.size(), true));
    reference_weights_ = weights;
  }

  Diagnosis run() && {
    check(CheckKind::kDevice, "device", device_text(), [this] { return place(); });
    if (diagnosis_.healthy()) {
      check(CheckKind::kWeights, "weights", "rows of every weight, read back", [this] { return check_weights(); });
      for (const CourseCheck& c : course_checks(tokens_)) check(c.kind, c.name, c.what, [&] { return run_courses(c); });
      const EngineBench bench{.compile = [this](const CompileOptions& o) { return compile(o); },
                              .examiner = examiner_,
                              .tokens = tokens_,
                              .context = cut_.plan.context(),
                              .kv_dtype = options_.kv_dtype,
                              .options = options_.engine};
      for (const EngineCheck& c : engine_checks(bench)) check(c.kind, c.name, c.what, c.run);
    }
    conclude(diagnosis_);
    return std::move(diagnosis_);
  }

 private:
  void check(CheckKind kind, const std::string& name, const std::string& what,
             const std::function<std::optional<Finding>()>& run) {
    const auto begin = std::chrono::steady_clock::now();
    Check check;
    check.kind = kind;
    check.name = name;
    check.finding = find_in(run);
    check.passed = !check.finding;
    check.sentence = check.passed ? what : finding_text(*check.finding);
    check.ms = std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - begin).count();
    diagnosis_.checks.push_back(std::move(check));
  }

  std::string device_text() const {
    std::string text = fmt::format("{}, weights {}, KV {}, {} positions", diagnosis_.subject.device,
                                   dtypes_text(cut_.plan), to_string(options_.kv_dtype), cut_.n_positions);
    if (cut_.plan.n_layers < full_.n_layers)
      text += fmt::format(", the first {} of {} layers", cut_.plan.n_layers, full_.n_layers);
    return text;
  }

  std::optional<Finding> place() {
    weights_ = subject_.place(cut_.plan, source_);
    compile({.kv = {.n_pages = 1, .dtype = options_.kv_dtype}, .max_rows = 1, .max_logit_rows = 1});
    return std::nullopt;
  }

  std::unique_ptr<Program> compile(const CompileOptions& options) {
    return subject_.compile(cut_.plan, weights_, options);
  }

  // Some rows of each weight, first and last among them, bit for bit.
  std::optional<Finding> check_weights() const {
    constexpr int64_t kRows = 61;
    const Plan& plan = cut_.plan;
    for (size_t i = 0; i < plan.weights.size(); ++i) {
      const Weight& weight = plan.weights[i];
      const auto id = static_cast<WeightId>(i);
      const int64_t n = weight.shape.size() == 1 ? 1 : weight.shape[0];
      std::vector<float> got(static_cast<size_t>(weight.shape.back())), want(got.size());
      for (int64_t k = 0, step = std::max<int64_t>(1, n / kRows); k < n + step - 1; k += step) {
        const int64_t row = std::min(k, n - 1);
        weights_->read_row(id, row, got.data());
        reference_weights_->read_row(id, row, want.data());
        const auto [g, w] = std::mismatch(got.begin(), got.end(), want.begin(), same_bits);
        if (g == got.end()) continue;
        Finding finding;
        const Step& reader = first_reader(plan, id);
        finding.step = reader.name;
        finding.verb = verb(reader.op);
        finding.remark = fmt::format("{} ({}) row {} element {} is {}, expected {}", weight.name,
                                     to_string(weight.dtype), row, g - got.begin(), *g, *w);
        return finding;
      }
    }
    return std::nullopt;
  }

  std::optional<Finding> run_courses(const CourseCheck& check) {
    for (const Course& course : check.courses)
      if (auto found = run_course(course)) return found;
    return std::nullopt;
  }

  std::optional<Finding> run_course(const Course& course) {
    const auto program = compile(course.compile_options(options_.kv_dtype));
    std::optional<Finding> found;
    for (const Course::Stop& stop : course.stops) {
      if (stop.rows.n_rows == 0)
        program->run(stop.batch);
      else if (found)
        examiner_.extend(*program, stop.batch, stop.rows, *found);
      else
        found = course.shows_steps ? examiner_.trace(*program, stop.batch, stop.rows)
                                   : examiner_.run(*program, stop.batch, stop.rows);
    }
    return found;
  }

  Backend& subject_;
  const WeightSource& source_;
  const DoctorOptions& options_;
  const Plan& full_;
  const Cut cut_;
  const CourseTokens tokens_;
  Recording truth_;
  std::shared_ptr<const PlacedWeights> reference_weights_, weights_;
  Examiner examiner_{cut_.plan, truth_};
  Diagnosis diagnosis_;
};

}  // namespace

Diagnosis diagnose(Backend& subject, Backend& reference, const Plan& plan, const WeightSource& source,
                   const DoctorOptions& options) {
  return Doctor(subject, reference, plan, source, options).run();
}

}  // namespace llorch
