// A bundle of made-up values, all of them unlike their defaults; and the files of its folder.
#pragma once

#include <algorithm>
#include <filesystem>
#include <string>
#include <vector>

#include "trace/bundle.h"

namespace llorch::test {

inline constexpr int32_t kSecretToken = 271828;  // its digits stand nowhere else in the bundle

inline BundleOrigin some_origin() {
  BundleOrigin origin;
  origin.build = "llorch 9.9";
  origin.backend = "cpu";
  origin.device = "toy \xc3\xa9";
  origin.numerics = "exact";
  origin.model = "toy";
  origin.model_path = "/models/toy";
  origin.model_hash = 0x0123456789abcdefu;
  origin.weights = {{"a", 1}, {"b", UINT64_MAX}};
  origin.config = {{"architecture", "llama"}, {"hidden", "64"}};
  origin.plan_hash = 77;
  origin.kv = {.n_pages = 9, .page_size = 16, .dtype = DType::kF32};
  origin.context = 100;
  origin.max_rows = 13;
  origin.max_step_rows = 12;
  origin.max_prefill_rows = 11;
  return origin;
}

inline SequenceRecord some_record() {
  SequenceRecord record;
  record.id = 17;
  record.tokens = {1, kSecretToken, 3, 4, 5};
  record.n_prompt = 3;
  record.max_tokens = 8;
  record.eos = {2, 6};
  record.sampling = {.temperature = 0.7f, .top_k = 3, .top_p = 0.9f, .min_p = 0.1f, .repetition_penalty = 1.1f};
  record.sampling.seed = UINT64_MAX;
  record.logits_hashes = {10, 11};
  FailEvent failure;
  failure.code = ErrorCode::kNumericFault;
  failure.message = "The logits at position 4 hold NaN.";
  failure.step = StepFailure{"embed", "embed", "[3, 64]", "toy", "bf16"};
  failure.position = 1;
  failure.kv_len = 5;
  failure.causes = {"the first step that gives NaN is embed", "weight token_embd.weight at column 9 is NaN"};
  record.failure = failure;
  record.last_steps = {{.start_ms = 1.5, .ms = 2.25, .rows = 3, .sequences = 2, .logit_rows = 1, .failed = true}};
  return record;
}

inline Bundle some_bundle(bool with_prompts) {
  return make_bundle(some_origin(), some_record(), "2026-01-02T03:04:05.678Z", with_prompts);
}

// Names of the files in a folder, in order.
inline std::vector<std::string> names_in(const std::filesystem::path& folder) {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) names.push_back(entry.path().filename());
  std::sort(names.begin(), names.end());
  return names;
}

}  // namespace llorch::test
