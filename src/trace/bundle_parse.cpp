// A bundle read: field by field, then whether they fit each other.
#include <fmt/format.h>

#include <algorithm>

#include "base/error.h"
#include "format/json_file.h"
#include "format/printable.h"
#include "trace/bundle_json.h"
#include "trace/json_fields.h"

namespace llorch {
namespace {

// A hostile bundle must not make a program that takes all memory: rows of a batch decide the size of its activations.
constexpr uint32_t kMaxRows = 16384;
constexpr uint32_t kMaxTokens = 1u << 24;
constexpr size_t kMaxSteps = 1024;

std::string quoted(const std::string& text) { return fmt::format("\"{}\"", printable(text, 40)); }

float number(JsonFields& fields, const std::string& field) { return static_cast<float>(fields.number(field)); }

uint32_t whole(JsonFields& fields, const std::string& field, uint32_t lo, uint32_t hi) {
  return static_cast<uint32_t>(fields.whole(field, lo, hi));
}

ErrorCode read_code(JsonFields& fields, const std::string& field) {
  const std::string name = fields.text(field);
  for (const ErrorInfo& info : error_infos())
    if (info.name == name) return info.code;
  fields.refuse(field, "the code of an error", quoted(name));
}

void read_run(JsonFields run, BundleOrigin& out) {
  out.build = run.text("build");
  out.backend = run.text("backend");
  out.device = run.text("device");
  out.numerics = run.text("numerics");
  const std::string dtype = run.text("kv_dtype");
  if (dtype != "f16" && dtype != "f32" && dtype != "q8_0")
    run.refuse("kv_dtype", "\"f16\", \"f32\" or \"q8_0\"", quoted(dtype));
  out.kv.dtype = dtype == "f32" ? DType::kF32 : dtype == "q8_0" ? DType::kQ8_0 : DType::kF16;
  out.kv.page_size = whole(run, "page_size", 16, KvShape::kMaxPageSize);
  if ((out.kv.page_size & (out.kv.page_size - 1)) != 0)
    run.refuse("page_size", "16, 32 or 64", std::to_string(out.kv.page_size));
  out.kv.n_pages = whole(run, "n_pages", 1, UINT32_MAX);
  out.context = whole(run, "context", 1, UINT32_MAX);
  out.max_rows = whole(run, "max_rows", 1, kMaxRows);
  out.max_step_rows = whole(run, "max_step_rows", 1, kMaxRows);
  out.max_prefill_rows = whole(run, "max_prefill_rows", 1, kMaxRows);
  run.end();
}

void read_model(JsonFields model, BundleOrigin& out) {
  out.model = model.text("name");
  out.model_path = model.text("path");
  if (!model.is_null("hash")) {
    out.model_hash = model.hash("hash");
  } else {
    out.no_model_hash = model.text("no_hash");
  }
  out.plan_hash = model.hash("plan_hash");
  JsonFields config = model.object("config");
  for (const std::string& name : config.names()) out.config[name] = config.text(name);
  JsonFields weights = model.object("weights");
  for (const std::string& name : weights.names()) out.weights[name] = weights.hash(name);
  model.end();
}

SamplingParams read_sampling(JsonFields sampling) {
  SamplingParams out;
  out.temperature = number(sampling, "temperature");
  out.top_k = whole(sampling, "top_k", 0, UINT32_MAX);
  out.top_p = number(sampling, "top_p");
  out.min_p = number(sampling, "min_p");
  out.repetition_penalty = number(sampling, "repetition_penalty");
  out.seed = sampling.whole("seed", 0, UINT64_MAX);
  sampling.end();
  return out;
}

FailEvent read_failure(JsonFields failure) {
  FailEvent out;
  out.code = read_code(failure, "code");
  out.message = failure.text("message");
  if (!failure.is_null("step")) {
    JsonFields step = failure.object("step");
    out.step =
        StepFailure{step.text("step"), step.text("verb"), step.text("shapes"), step.text("device"), step.text("dtype")};
    step.end();
  }
  out.position = whole(failure, "position", 0, UINT32_MAX);
  out.kv_len = whole(failure, "kv_len", 0, UINT32_MAX);
  out.causes = failure.texts("cause");
  failure.end();
  return out;
}

StepTiming read_step(JsonFields step) {
  StepTiming out;
  out.start_ms = step.number("start_ms");
  out.ms = step.number("ms");
  out.rows = whole(step, "rows", 0, UINT32_MAX);
  out.sequences = whole(step, "sequences", 0, UINT32_MAX);
  out.logit_rows = whole(step, "logit_rows", 0, UINT32_MAX);
  out.failed = step.flag("failed");
  step.end();
  return out;
}

struct ReadTokens {
  uint32_t count;
  uint64_t digest;
  std::vector<int32_t> tokens;  // none where redacted
};

// The prompt's digest is checked, because nothing else shows that its tokens are those of the recording. That of the
// generated ones is not: a replay says which of them is another.
ReadTokens read_tokens(JsonFields fields, bool redacted, bool is_prompt) {
  ReadTokens out{whole(fields, "count", is_prompt ? 1 : 0, kMaxTokens), fields.hash("digest"), {}};
  if (!redacted) {
    out.tokens = fields.token_ids("tokens");
    if (out.tokens.size() != out.count)
      fields.refuse("tokens", fmt::format("{}, as count says", out.count), std::to_string(out.tokens.size()));
    if (is_prompt && tokens_digest(out.tokens) != out.digest)
      fields.refuse("digest", fmt::format("{:016x}, that of its tokens", tokens_digest(out.tokens)),
                    fmt::format("{:016x}: the tokens or the digest were changed", out.digest));
  }
  fields.end();
  return out;
}

void read_end(JsonFields& fields, SequenceRecord& record) {
  const std::string end = fields.text("end");
  if (!fields.is_null("failure")) {
    record.failure = read_failure(fields.object("failure"));
    if (end != to_string(record.failure->code))
      fields.refuse("end", fmt::format("\"{}\", the code of the failure", to_string(record.failure->code)),
                    quoted(end));
    return;
  }
  for (const FinishReason reason : {FinishReason::kMaxTokens, FinishReason::kEos, FinishReason::kCancelled})
    if (end == to_string(reason)) record.finish = reason;
  if (!record.finish) fields.refuse("end", "\"MAX_TOKENS\", \"EOS\" or \"CANCELLED\" without a failure", quoted(end));
}

void check_version(JsonFields& fields, std::string_view where) {
  if (!fields.has("llorch_bundle")) fail("{}: llorch_bundle: is missing: this is no bundle of llorch", where);
  const uint64_t version = fields.whole("llorch_bundle", 0, UINT64_MAX);
  if (version != kBundleVersion)
    fields.refuse("llorch_bundle", fmt::format("{}, the version that this llorch reads", kBundleVersion),
                  std::to_string(version));
}

}  // namespace

Bundle parse_bundle(std::string_view text, std::string_view where) {
  const nlohmann::json value = parse_json(text, where);
  JsonFields fields(value, std::string(where));
  check_version(fields, where);
  Bundle bundle;
  SequenceRecord& record = bundle.record;
  bundle.recorded_at = fields.text("recorded_at");
  record.id = fields.whole("request", 0, UINT64_MAX);
  read_end(fields, record);
  read_run(fields.object("run"), bundle.origin);
  read_model(fields.object("model"), bundle.origin);
  record.sampling = read_sampling(fields.object("sampling"));
  record.max_tokens = whole(fields, "max_tokens", 1, UINT32_MAX);
  record.eos = fields.token_ids("eos");
  bundle.redacted = fields.flag("redacted");
  ReadTokens prompt = read_tokens(fields.object("prompt"), bundle.redacted, true);
  const ReadTokens generated = read_tokens(fields.object("generated"), bundle.redacted, false);
  record.n_prompt = prompt.count;
  record.tokens = std::move(prompt.tokens);
  record.tokens.insert(record.tokens.end(), generated.tokens.begin(), generated.tokens.end());
  bundle.n_generated = generated.count;
  bundle.prompt_digest = prompt.digest;
  bundle.generated_digest = generated.digest;
  if (generated.count > record.max_tokens)
    fields.refuse("max_tokens", fmt::format("{} or more, the tokens that were generated", generated.count),
                  std::to_string(record.max_tokens));
  record.logits_hashes = fields.hashes("logits_hashes");
  const size_t rows = generated.count + (record.finish == FinishReason::kEos ? 1 : 0);
  if (record.logits_hashes.size() != rows)
    fields.refuse("logits_hashes", fmt::format("{}, one for each row that was sampled", rows),
                  std::to_string(record.logits_hashes.size()));
  std::vector<JsonFields> steps = fields.objects("last_steps");
  if (steps.size() > kMaxSteps)
    fields.refuse("last_steps", fmt::format("{} at most", kMaxSteps), std::to_string(steps.size()));
  for (const JsonFields& step : steps) record.last_steps.push_back(read_step(step));
  fields.end();
  return bundle;
}

}  // namespace llorch
