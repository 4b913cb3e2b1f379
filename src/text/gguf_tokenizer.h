// Tokenizers from the metadata of GGUF files (keys tokenizer.ggml.*).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "format/gguf.h"
#include "text/tokenizer.h"

namespace llorch {

// The metadata as plain data. Views point into the file.
struct GgufTokenizerData {
  std::string file;        // for messages
  std::string_view model;  // "llama" (SentencePiece) or "gpt2" (byte-level)
  std::string_view pre;    // how gpt2 splits words; empty if the file does not say
  std::vector<std::string_view> tokens, merges;
  std::vector<float> scores;   // of llama; as many as tokens
  std::vector<int32_t> types;  // 1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 byte; none: all normal
  std::optional<bool> add_bos, add_eos, add_space_prefix;
  std::optional<uint64_t> bos, eos, eot, eom, unknown;
};

// Throw Error naming file, key, expected and got.
GgufTokenizerData gguf_tokenizer_data(const GgufMetadata& metadata);
TokenizerParts make_tokenizer(const GgufTokenizerData& data);

}  // namespace llorch
