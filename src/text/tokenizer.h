// The tokenizer of a model: text to token ids and back, exactly as the files of the model say.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "text/added_tokens.h"
#include "text/bpe.h"
#include "text/decoder.h"
#include "text/normalizer.h"
#include "text/pre_tokenizer.h"

namespace llorch {

class Checkpoint;

// What a tokenizer is made of; the loaders fill it (json_tokenizer.h, gguf_tokenizer.h).
struct TokenizerParts {
  Bpe bpe;  // its vocabulary holds the added tokens too
  std::vector<AddedToken> added_tokens;
  Normalizer normalizer;
  PreTokenizer pre_tokenizer;
  Decoder decoder;
  std::vector<int32_t> prefix, suffix;  // ids around a text, for add_special
  std::optional<int32_t> bos;
  std::vector<int32_t> eos;
};

// Immutable: any number of threads may use one.
class Tokenizer {
 public:
  // From tokenizer.json (and tokenizer_config.json beside it, for BOS and EOS) or from the metadata of a GGUF file.
  // Throws Error naming file, field, expected and got.
  static std::shared_ptr<const Tokenizer> load(const Checkpoint& checkpoint);

  explicit Tokenizer(TokenizerParts parts);

  // Ids of a text. Special and added tokens in it are recognised: the leftmost, the longest. add_special: with BOS and
  // EOS where the tokenizer adds them. Invalid UTF-8 is read as U+FFFD, one for each maximal invalid subpart.
  std::vector<int32_t> encode(std::string_view text, bool add_special) const;

  // Text of ids, valid UTF-8. Ids without a token have no text; skip_special: special tokens neither.
  std::string decode(std::span<const int32_t> ids, bool skip_special) const;

  // Highest id + 1; the model's vocabulary may be padded beyond it.
  size_t vocab_size() const { return static_cast<size_t>(vocabulary().size()); }
  std::optional<int32_t> bos() const { return parts_.bos; }
  const std::vector<int32_t>& eos() const { return parts_.eos; }  // as far as the tokenizer's files name any
  bool is_special(int32_t id) const;

  // The token as it stands in the file ("Ġthe", "▁the", "<0x0A>"); empty if there is none.
  std::string_view piece(int32_t id) const;
  std::optional<int32_t> find(std::string_view piece) const { return vocabulary().find(piece); }

 private:
  friend class StreamDecoder;
  const Vocabulary& vocabulary() const { return parts_.bpe.vocabulary(); }
  // The piece to decode; nullptr if the id has no text.
  const std::string* visible_piece(int32_t id, bool skip_special) const;

  TokenizerParts parts_;
  AddedTokens raw_tokens_, normalized_tokens_;  // looked for before and after normalization
  std::vector<int32_t> special_;                // sorted
};

}  // namespace llorch
