// Tokenizers from Hugging Face's tokenizer.json.
#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>

#include "text/json_field.h"
#include "text/tokenizer.h"

namespace llorch {

// Reads tokenizer.json and, for the names of BOS and EOS, tokenizer_config.json beside it if there is one. Throws
// Error naming file, field, expected and got; a component of an unknown type is an Error that names it.
TokenizerParts read_tokenizer_files(const std::filesystem::path& tokenizer_json);

// The same from parsed JSON, as parse_json gives it (so of bounded depth); config may be null. file begins the
// messages.
TokenizerParts make_tokenizer(const nlohmann::json& tokenizer, const nlohmann::json& config, const std::string& file);

// The components that stand in a file of their own (json_components.cpp). field: the component; nothing where it is
// null or absent.
Normalizer make_normalizer(const std::optional<JsonField>& field);
PreTokenizer make_pre_tokenizer(const std::optional<JsonField>& field);
Decoder make_decoder(const std::optional<JsonField>& field);

}  // namespace llorch
