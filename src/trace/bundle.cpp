// What goes into a bundle, and what redaction leaves out.
#include "trace/bundle.h"

#include <xxhash.h>

#include <utility>

namespace llorch {

uint64_t tokens_digest(std::span<const int32_t> tokens) { return XXH3_64bits(tokens.data(), tokens.size_bytes()); }

Bundle make_bundle(BundleOrigin origin, SequenceRecord record, std::string recorded_at, bool with_prompts) {
  Bundle bundle;
  const std::span<const int32_t> tokens(record.tokens);
  bundle.origin = std::move(origin);
  bundle.recorded_at = std::move(recorded_at);
  bundle.redacted = !with_prompts;
  bundle.n_generated = static_cast<uint32_t>(tokens.size()) - record.n_prompt;
  bundle.prompt_digest = tokens_digest(tokens.first(record.n_prompt));
  bundle.generated_digest = tokens_digest(tokens.subspan(record.n_prompt));
  bundle.record = std::move(record);
  if (bundle.redacted) bundle.record.tokens.clear();
  return bundle;
}

std::string end_text(const SequenceRecord& record) {
  return std::string(record.failure ? to_string(record.failure->code) : to_string(*record.finish));
}

}  // namespace llorch
