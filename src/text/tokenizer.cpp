// Encoding and decoding with the parts of a tokenizer, and the choice of a loader.
#include "text/tokenizer.h"

#include <algorithm>

#include "base/error.h"
#include "format/checkpoint.h"
#include "text/gguf_tokenizer.h"
#include "text/json_tokenizer.h"
#include "text/utf8.h"

namespace llorch {
namespace {

// The tokens to look for in the text as it is, or in the normalized text, as it will be written there.
AddedTokens select(const TokenizerParts& parts, bool normalized) {
  std::vector<AddedToken> selected;
  for (AddedToken token : parts.added_tokens) {
    if (token.normalized != normalized) continue;
    if (normalized) token.content = parts.normalizer.apply(token.content);
    selected.push_back(std::move(token));
  }
  return AddedTokens(std::move(selected));
}

}  // namespace

std::shared_ptr<const Tokenizer> Tokenizer::load(const Checkpoint& checkpoint) {
  switch (checkpoint.container()) {
    case Checkpoint::Container::kSafetensors:
      return std::make_shared<const Tokenizer>(read_tokenizer_files(checkpoint.tokenizer_json()));
    case Checkpoint::Container::kGguf:
      return std::make_shared<const Tokenizer>(make_tokenizer(gguf_tokenizer_data(checkpoint.metadata())));
  }
  LLORCH_CHECK(false, "container {}", static_cast<int>(checkpoint.container()));
  return nullptr;
}

Tokenizer::Tokenizer(TokenizerParts parts)
    : parts_(std::move(parts)), raw_tokens_(select(parts_, false)), normalized_tokens_(select(parts_, true)) {
  for (const AddedToken& token : parts_.added_tokens)
    if (token.special) special_.push_back(token.id);
  std::sort(special_.begin(), special_.end());
}

std::vector<int32_t> Tokenizer::encode(std::string_view text, bool add_special) const {
  std::string repaired;
  if (!is_valid_utf8(text)) text = repaired = repair_utf8(text);
  std::vector<int32_t> ids;
  if (add_special) ids = parts_.prefix;
  Bpe::Scratch scratch;
  const auto sink = [&](std::string_view word) { parts_.bpe.encode(word, ids, scratch); };
  for (const Segment& raw : raw_tokens_.split(text)) {
    if (raw.token) {
      ids.push_back(*raw.token);
      continue;
    }
    const std::string normalized = parts_.normalizer.apply(text.substr(raw.begin, raw.end - raw.begin));
    for (const Segment& part : normalized_tokens_.split(normalized)) {
      if (part.token) {
        ids.push_back(*part.token);
        continue;
      }
      const auto words = std::string_view(normalized).substr(part.begin, part.end - part.begin);
      parts_.pre_tokenizer.split(words, raw.begin == 0 && part.begin == 0, sink);
    }
  }
  if (add_special) ids.insert(ids.end(), parts_.suffix.begin(), parts_.suffix.end());
  return ids;
}

std::string Tokenizer::decode(std::span<const int32_t> ids, bool skip_special) const {
  std::string out;
  DecoderRun run(parts_.decoder);
  for (const int32_t id : ids)
    if (const std::string* piece = visible_piece(id, skip_special)) run.push(*piece, out);
  run.finish(out);
  return out;
}

bool Tokenizer::is_special(int32_t id) const { return std::binary_search(special_.begin(), special_.end(), id); }

std::string_view Tokenizer::piece(int32_t id) const {
  const std::string* piece = vocabulary().piece(id);
  return piece == nullptr ? std::string_view() : *piece;
}

const std::string* Tokenizer::visible_piece(int32_t id, bool skip_special) const {
  return skip_special && is_special(id) ? nullptr : vocabulary().piece(id);
}

}  // namespace llorch
