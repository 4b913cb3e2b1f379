// A bundle written; bundle_parse.cpp reads it.
#include "trace/bundle_json.h"

#include <fmt/format.h>

namespace llorch {
namespace {

using Json = nlohmann::ordered_json;

// What systems and files say may hold line ends, which no reader accepts.
std::string one_line(std::string text) {
  for (char& c : text)
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = ' ';
  return text;
}

Json hex(uint64_t value) { return fmt::format("{:016x}", value); }

Json model_json(const BundleOrigin& origin) {
  Json weights = Json::object(), config = Json::object();
  for (const auto& [name, hash] : origin.weights) weights[name] = hex(hash);
  for (const auto& [name, value] : origin.config) config[name] = one_line(value);
  Json model = {{"name", one_line(origin.model)},
                {"path", one_line(origin.model_path)},
                {"hash", origin.model_hash ? hex(*origin.model_hash) : Json(nullptr)}};
  if (!origin.model_hash) model["no_hash"] = one_line(origin.no_model_hash);
  model["plan_hash"] = hex(origin.plan_hash);
  model["config"] = std::move(config);
  model["weights"] = std::move(weights);
  return model;
}

Json run_json(const BundleOrigin& origin) {
  return {{"build", origin.build},
          {"backend", origin.backend},
          {"device", one_line(origin.device)},
          {"numerics", origin.numerics},
          {"kv_dtype", to_string(origin.kv.dtype)},
          {"page_size", origin.kv.page_size},
          {"n_pages", origin.kv.n_pages},
          {"context", origin.context},
          {"max_rows", origin.max_rows},
          {"max_step_rows", origin.max_step_rows},
          {"max_prefill_rows", origin.max_prefill_rows}};
}

Json tokens_json(const Bundle& bundle, uint32_t first, uint32_t count, uint64_t digest) {
  Json out = {{"count", count}, {"digest", hex(digest)}};
  if (!bundle.redacted) {
    const auto begin = bundle.record.tokens.begin() + first;
    out["tokens"] = std::vector<int32_t>(begin, begin + count);
  }
  return out;
}

Json failure_json(const FailEvent& failure) {
  Json step = nullptr, causes = Json::array();
  for (const std::string& cause : failure.causes) causes.push_back(one_line(cause));
  if (failure.step)
    step = {{"step", failure.step->step},
            {"verb", failure.step->verb},
            {"shapes", one_line(failure.step->shapes)},
            {"dtype", failure.step->dtype},
            {"device", one_line(failure.step->device)}};
  return {{"code", to_string(failure.code)}, {"message", one_line(failure.message)},
          {"step", std::move(step)},         {"position", failure.position},
          {"kv_len", failure.kv_len},        {"cause", std::move(causes)}};
}

Json step_json(const StepTiming& step) {
  return {{"start_ms", step.start_ms},     {"ms", step.ms},        {"rows", step.rows}, {"sequences", step.sequences},
          {"logit_rows", step.logit_rows}, {"failed", step.failed}};
}

}  // namespace

Json to_json(const Bundle& bundle) {
  const SequenceRecord& record = bundle.record;
  const SamplingParams& sampling = record.sampling;
  Json hashes = Json::array(), steps = Json::array();
  for (const uint64_t hash : record.logits_hashes) hashes.push_back(hex(hash));
  for (const StepTiming& step : record.last_steps) steps.push_back(step_json(step));
  return {{"llorch_bundle", kBundleVersion},
          {"recorded_at", bundle.recorded_at},
          {"request", record.id},
          {"end", end_text(record)},
          {"failure", record.failure ? failure_json(*record.failure) : Json(nullptr)},
          {"run", run_json(bundle.origin)},
          {"model", model_json(bundle.origin)},
          {"sampling",
           {{"temperature", sampling.temperature},
            {"top_k", sampling.top_k},
            {"top_p", sampling.top_p},
            {"min_p", sampling.min_p},
            {"repetition_penalty", sampling.repetition_penalty},
            {"seed", sampling.seed}}},
          {"max_tokens", record.max_tokens},
          {"eos", record.eos},
          {"redacted", bundle.redacted},
          {"prompt", tokens_json(bundle, 0, record.n_prompt, bundle.prompt_digest)},
          {"generated", tokens_json(bundle, record.n_prompt, bundle.n_generated, bundle.generated_digest)},
          {"logits_hashes", std::move(hashes)},
          {"last_steps", std::move(steps)}};
}

}  // namespace llorch
