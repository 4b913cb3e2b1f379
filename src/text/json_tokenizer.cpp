// The BPE model, the added tokens and the post-processor of tokenizer.json.
#include "text/json_tokenizer.h"

#include <algorithm>

#include "base/error.h"
#include "format/json_file.h"
#include "format/printable.h"
#include "text/unicode.h"

namespace llorch {
namespace {

using nlohmann::json;

// Runs work, whose errors do not name the place yet.
template <typename Work>
void at_place(const std::string& path, const Work& work) {
  try {
    work();
  } catch (const Error& error) {
    fail("{}: {}", path, error.what());
  }
}

// "a b" or ["a", "b"].
std::pair<std::string_view, std::string_view> merge_pair(const JsonField& merges, size_t index) {
  const json& merge = merges.value()[index];
  if (merge.is_string()) {
    const std::string_view text = merge.get_ref<const std::string&>();
    const size_t space = text.find(' ');
    if (space != text.npos && text.find(' ', space + 1) == text.npos)
      return {text.substr(0, space), text.substr(space + 1)};
  } else if (merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string()) {
    return {merge[0].get_ref<const std::string&>(), merge[1].get_ref<const std::string&>()};
  }
  merges.element(index).wrong("\"left right\" or [\"left\", \"right\"]");
}

Vocabulary read_vocabulary(const JsonField& field) {
  if (!field.value().is_object()) field.wrong("an object of tokens and ids");
  Vocabulary vocabulary(field.value().size());
  for (const auto& entry : field.value().get_ref<const json::object_t&>()) {
    const std::string& piece = entry.first;
    const json& id = entry.second;
    if (!id.is_number_integer() || id.get<int64_t>() < 0 || id.get<int64_t>() > kMaxTokenId)
      JsonField(id, fmt::format("{}: token \"{}\"", field.path(), printable(piece)))
          .wrong(fmt::format("an id in 0..{}", kMaxTokenId));
    at_place(field.path(), [&] { vocabulary.insert(piece, id.get<int64_t>()); });
  }
  return vocabulary;
}

MergeTable read_merges(const JsonField& field, const Vocabulary& vocabulary) {
  MergeTable merges(field.size());
  std::string joined;
  for (size_t rank = 0; rank < field.size(); ++rank) {
    const auto [left, right] = merge_pair(field, rank);
    const auto id_of = [&](std::string_view piece) {
      const auto id = vocabulary.find(piece);
      if (!id)
        fail("{}[{}]: the merge needs the token \"{}\", which is not in the vocabulary", field.path(), rank,
             printable(piece));
      return *id;
    };
    joined.assign(left).append(right);
    const int32_t left_id = id_of(left), right_id = id_of(right);
    merges.insert(left_id, right_id, {static_cast<uint32_t>(rank), id_of(joined)});
  }
  return merges;
}

void check_model(const JsonField& model) {
  const std::string type = model.string_or("type", "BPE");  // old files do not say
  if (type != "BPE") fail("{}: a model of type \"{}\" is not supported; known: BPE", model.path(), printable(type));
  for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    const auto affix = model.find(key);
    if (affix && !affix->string().empty()) affix->wrong("none (not supported)");
  }
  const auto dropout = model.find("dropout");
  if (dropout && dropout->value() != 0) dropout->wrong("none (a random tokenizer is not supported)");
}

std::vector<AddedToken> read_added_tokens(const std::optional<JsonField>& field, Vocabulary& vocabulary) {
  std::vector<AddedToken> tokens;
  for (size_t i = 0; field && i < field->size(); ++i) {
    const JsonField entry = field->element(i);
    AddedToken token;
    token.content = entry.at("content").string();
    token.id = static_cast<int32_t>(entry.at("id").integer(0, kMaxTokenId));
    token.special = entry.boolean_or("special", false);
    token.single_word = entry.boolean_or("single_word", false);
    token.lstrip = entry.boolean_or("lstrip", false);
    token.rstrip = entry.boolean_or("rstrip", false);
    token.normalized = entry.boolean_or("normalized", !token.special);
    if (token.content.empty()) continue;
    if (token.content.size() > AddedTokens::kMaxContentBytes)
      fail("{}.content: expected at most {} bytes, got {}", entry.path(), AddedTokens::kMaxContentBytes,
           token.content.size());
    const auto known = vocabulary.find(token.content);
    if (known && *known != token.id)
      fail("{}: \"{}\" has id {} in the vocabulary, got {}", entry.path(), printable(token.content), *known, token.id);
    if (!known) at_place(entry.path(), [&] { vocabulary.insert_unlisted(token.content, token.id); });
    tokens.push_back(std::move(token));
  }
  return tokens;
}

// What a TemplateProcessing puts around a single text.
void read_template(const JsonField& field, TokenizerParts& parts) {
  const JsonField single = field.at("single");
  std::vector<int32_t> before, after;
  bool text_seen = false;
  for (size_t i = 0; i < single.size(); ++i) {
    const JsonField piece = single.element(i);
    if (piece.find("Sequence")) {
      if (text_seen) piece.wrong("the text only once");
      text_seen = true;
      continue;
    }
    const JsonField name = piece.at("SpecialToken").at("id");
    const JsonField tokens = field.at("special_tokens").at(name.string().c_str()).at("ids");
    for (size_t k = 0; k < tokens.size(); ++k) {
      const int64_t id = tokens.element(k).integer(0, kMaxTokenId);
      if (parts.bpe.vocabulary().piece(id) == nullptr) tokens.element(k).wrong("the id of a token");
      (text_seen ? after : before).push_back(static_cast<int32_t>(id));
    }
  }
  if (!text_seen) single.wrong("a template with the text in it");
  parts.prefix.insert(parts.prefix.begin(), before.begin(), before.end());
  parts.suffix.insert(parts.suffix.end(), after.begin(), after.end());
}

void read_post_processor(const JsonField& field, TokenizerParts& parts) {
  const std::string& type = field.at("type").string();
  if (type == "ByteLevel") return;  // changes offsets only
  if (type == "TemplateProcessing") {
    read_template(field, parts);
  } else if (type == "Sequence") {
    const JsonField list = field.at("processors");
    for (size_t i = 0; i < list.size(); ++i) read_post_processor(list.element(i), parts);
  } else {
    fail("{}: a post-processor of type \"{}\" is not supported; known: ByteLevel, TemplateProcessing, Sequence",
         field.path(), printable(type));
  }
}

// The id of a token that tokenizer_config.json names, as a string or as an added token's object.
std::optional<int32_t> named_token(const JsonField& config, const char* key, const TokenizerParts& parts) {
  const auto field = config.find(key);
  if (!field) return std::nullopt;
  const std::string& name = field->value().is_object() ? field->at("content").string() : field->string();
  const auto added = std::find_if(parts.added_tokens.begin(), parts.added_tokens.end(),
                                  [&](const AddedToken& token) { return token.content == name; });
  return added != parts.added_tokens.end() ? std::optional(added->id) : parts.bpe.vocabulary().find(name);
}

}  // namespace

TokenizerParts make_tokenizer(const json& tokenizer, const json& config, const std::string& file) {
  const JsonField root(tokenizer, file + ": ");
  const JsonField model = root.at("model");
  check_model(model);
  Vocabulary vocabulary = read_vocabulary(model.at("vocab"));
  MergeTable merges = read_merges(model.at("merges"), vocabulary);
  Bpe::Options options;
  options.byte_fallback = model.boolean_or("byte_fallback", false);
  options.fuse_unk = model.boolean_or("fuse_unk", false);
  options.ignore_merges = model.boolean_or("ignore_merges", false);
  if (const auto unk = model.find("unk_token")) {
    options.unk = vocabulary.find(unk->string());
    if (!options.unk) unk->wrong("a token of the vocabulary");
  }
  std::vector<AddedToken> added = read_added_tokens(root.find("added_tokens"), vocabulary);
  TokenizerParts parts{Bpe(std::move(vocabulary), std::move(merges), options),
                       std::move(added),
                       make_normalizer(root.find("normalizer")),
                       make_pre_tokenizer(root.find("pre_tokenizer")),
                       make_decoder(root.find("decoder")),
                       {},
                       {},
                       {},
                       {}};
  if (const auto field = root.find("post_processor")) read_post_processor(*field, parts);
  if (!config.is_null()) {
    const JsonField names(config, file + "'s tokenizer_config.json: ");
    parts.bos = named_token(names, "bos_token", parts);
    if (const auto eos = named_token(names, "eos_token", parts)) parts.eos.push_back(*eos);
  }
  return parts;
}

TokenizerParts read_tokenizer_files(const std::filesystem::path& tokenizer_json) {
  const auto config = tokenizer_json.parent_path() / "tokenizer_config.json";
  return make_tokenizer(read_json_file(tokenizer_json),
                        std::filesystem::exists(config) ? read_json_file(config) : json(), tokenizer_json.string());
}

}  // namespace llorch
