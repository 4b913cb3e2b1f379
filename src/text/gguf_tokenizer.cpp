// The two kinds of GGUF tokenizers, and what the names of gpt2's pre-tokenizers mean.
#include "text/gguf_tokenizer.h"

#include <algorithm>
#include <array>

#include "base/error.h"
#include "format/printable.h"
#include "text/utf8.h"

namespace llorch {
namespace {

constexpr std::string_view kSpaceMark = "\xE2\x96\x81";  // U+2581, how SentencePiece writes a space

enum TokenType : int32_t { kNormal = 1, kUnknown = 2, kControl = 3, kUserDefined = 4, kUnused = 5, kByte = 6 };

// A kind of pre-tokenizer: each expression cuts what the ones before it left.
struct PreKind {
  std::string_view name;
  std::array<std::string_view, 2> expressions;  // the second may be empty
  bool ignore_merges;
  bool add_bos;  // where the file does not say
};

constexpr std::string_view kGpt2 = PreTokenizer::kGpt2Words;
constexpr std::string_view kLlama3 =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kQwen2 =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kTekken = R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|)"
                                     R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|)"
                                     R"(\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

constexpr PreKind kPreKinds[] = {
    {"default", {kGpt2, ""}, false, false},        {"gpt-2", {kGpt2, ""}, false, false},
    {"llama-bpe", {kLlama3, ""}, true, true},      {"llama-v3", {kLlama3, ""}, true, true},
    {"llama3", {kLlama3, ""}, true, true},         {"qwen2", {kQwen2, ""}, false, false},
    {"smollm", {R"(\p{N})", kGpt2}, false, false}, {"tekken", {kTekken, ""}, true, true},
};

const PreKind& pre_kind(const GgufTokenizerData& data) {
  const std::string_view name = data.pre.empty() ? "default" : data.pre;
  std::string known;
  for (const PreKind& kind : kPreKinds) {
    if (kind.name == name) return kind;
    known.append(known.empty() ? "" : ", ").append(kind.name);
  }
  fail("{}: tokenizer.ggml.pre: expected one of {}, got \"{}\"", data.file, known, printable(name));
}

int32_t type_of(const GgufTokenizerData& data, size_t id) { return data.types.empty() ? kNormal : data.types[id]; }

void check(const GgufTokenizerData& data) {
  if (data.tokens.empty()) fail("{}: tokenizer.ggml.tokens: expected at least one token, got none", data.file);
  if (data.tokens.size() > static_cast<size_t>(kMaxTokenId))
    fail("{}: tokenizer.ggml.tokens: expected at most {} tokens, got {}", data.file, kMaxTokenId, data.tokens.size());
  if (!data.types.empty() && data.types.size() != data.tokens.size())
    fail("{}: tokenizer.ggml.token_type: expected {} entries, one for each token, got {}", data.file,
         data.tokens.size(), data.types.size());
  for (size_t id = 0; id < data.tokens.size(); ++id) {
    if (!is_valid_utf8(data.tokens[id]))
      fail("{}: tokenizer.ggml.tokens[{}]: \"{}\" is not valid UTF-8", data.file, id, printable(data.tokens[id]));
    if (type_of(data, id) < kNormal || type_of(data, id) > kByte)
      fail("{}: tokenizer.ggml.token_type[{}]: expected 1..6, got {}", data.file, id, type_of(data, id));
  }
}

// The id that a key names, if the file has the key.
std::optional<int32_t> checked_id(const GgufTokenizerData& data, std::string_view key, std::optional<uint64_t> id) {
  if (!id) return std::nullopt;
  if (*id >= data.tokens.size())
    fail("{}: tokenizer.ggml.{}_token_id: expected an id below {}, got {}", data.file, key, data.tokens.size(), *id);
  return static_cast<int32_t>(*id);
}

Vocabulary make_vocabulary(const GgufTokenizerData& data) {
  Vocabulary vocabulary(data.tokens.size());
  for (size_t id = 0; id < data.tokens.size(); ++id) {
    std::string piece(data.tokens[id]);
    // Padding of vocabularies may repeat a piece: the first one counts, the others only have a text.
    if (vocabulary.find(piece)) {
      vocabulary.insert_unlisted(std::move(piece), static_cast<int64_t>(id));
    } else {
      vocabulary.insert(std::move(piece), static_cast<int64_t>(id));
    }
  }
  return vocabulary;
}

std::vector<AddedToken> added_tokens(const GgufTokenizerData& data, const Vocabulary& vocabulary) {
  std::vector<AddedToken> added;
  for (size_t id = 0; id < data.tokens.size(); ++id) {
    const int32_t type = type_of(data, id);
    const bool special = type == kControl || type == kUnknown;
    if (!special && type != kUserDefined) continue;
    const std::string content(data.tokens[id]);
    if (content.empty() || vocabulary.find(content) != static_cast<int32_t>(id)) continue;  // nothing to recognise
    if (content.size() > AddedTokens::kMaxContentBytes)
      fail("{}: tokenizer.ggml.tokens[{}]: expected a special token of at most {} bytes, got {}", data.file, id,
           AddedTokens::kMaxContentBytes, content.size());
    AddedToken token;
    token.content = content;
    token.id = static_cast<int32_t>(id);
    token.special = special;
    added.push_back(std::move(token));
  }
  return added;
}

// gpt2: merges as "left right", the first one best.
MergeTable listed_merges(const GgufTokenizerData& data, const Vocabulary& vocabulary) {
  MergeTable merges(data.merges.size());
  for (size_t rank = 0; rank < data.merges.size(); ++rank) {
    const std::string_view merge = data.merges[rank];
    const size_t space = merge.find(' ', 1);
    const auto id_of = [&](std::string_view piece) {
      const auto id = vocabulary.find(piece);
      if (!id)
        fail("{}: tokenizer.ggml.merges[{}]: \"{}\" needs the token \"{}\", which is not there", data.file, rank,
             printable(merge), printable(piece));
      return *id;
    };
    if (space == merge.npos)
      fail("{}: tokenizer.ggml.merges[{}]: expected \"left right\", got \"{}\"", data.file, rank, printable(merge));
    const std::string_view left = merge.substr(0, space), right = merge.substr(space + 1);
    const int32_t left_id = id_of(left), right_id = id_of(right);
    merges.insert(left_id, right_id, {static_cast<uint32_t>(rank), id_of(std::string(left).append(right))});
  }
  return merges;
}

// llama: two tokens may be joined wherever their text together is a token; its score says how soon. Every such pair
// becomes a merge; equal scores have equal rank, and then the leftmost goes first.
MergeTable scored_merges(const GgufTokenizerData& data, const Vocabulary& vocabulary) {
  if (data.scores.size() != data.tokens.size())
    fail("{}: tokenizer.ggml.scores: expected {} entries, one for each token, got {}", data.file, data.tokens.size(),
         data.scores.size());
  std::vector<float> order = data.scores;
  if (std::any_of(order.begin(), order.end(), [](float score) { return score != score; }))
    fail("{}: tokenizer.ggml.scores: expected numbers, got a NaN", data.file);
  std::sort(order.begin(), order.end(), std::greater<>());
  MergeTable merges(data.tokens.size() * 4);
  constexpr size_t kMaxJoinedBytes = 1024;  // a longer piece is a user-defined text, not the work of merges
  for (size_t id = 0; id < data.tokens.size(); ++id) {
    const std::string_view piece = data.tokens[id];
    const int32_t type = type_of(data, id);
    if ((type != kNormal && type != kUserDefined && type != kUnused) || piece.size() > kMaxJoinedBytes) continue;
    if (vocabulary.find(piece) != static_cast<int32_t>(id)) continue;
    const auto place = std::lower_bound(order.begin(), order.end(), data.scores[id], std::greater<>());
    const auto rank = static_cast<uint32_t>(place - order.begin());
    for (size_t cut = 0; cut < piece.size();) {
      cut += utf8_length(piece[cut]);
      if (cut >= piece.size()) break;
      const auto left = vocabulary.find(piece.substr(0, cut));
      const auto right = vocabulary.find(piece.substr(cut));
      if (left && right) merges.insert(*left, *right, {rank, static_cast<int32_t>(id)});
    }
  }
  return merges;
}

struct Words {
  Bpe bpe;
  Normalizer normalizer;
  PreTokenizer pre_tokenizer;
  Decoder decoder;
  bool add_bos;  // where the file does not say
};

Words gpt2_words(const GgufTokenizerData& data, Vocabulary vocabulary) {
  const PreKind& kind = pre_kind(data);
  Bpe::Options options;
  options.ignore_merges = kind.ignore_merges;
  MergeTable merges = listed_merges(data, vocabulary);
  std::vector<PreTokenizer::Step> steps;
  for (const std::string_view expression : kind.expressions)
    if (!expression.empty())
      steps.push_back(PreTokenizer::Split{Pattern(Regex(expression, data.file + ": tokenizer.ggml.pre")),
                                          PreTokenizer::Behavior::kIsolated, false});
  steps.push_back(PreTokenizer::ByteLevel{false, std::nullopt});
  std::vector<Decoder::Step> decoder{Decoder::ByteLevel{}};
  return {Bpe(std::move(vocabulary), std::move(merges), options), Normalizer(), PreTokenizer(std::move(steps)),
          Decoder(std::move(decoder)), kind.add_bos};
}

Words llama_words(const GgufTokenizerData& data, Vocabulary vocabulary) {
  const bool space_prefix = data.add_space_prefix.value_or(true);
  Bpe::Options options;
  options.byte_fallback = true;
  options.fuse_unk = true;
  options.unk = checked_id(data, "unknown", data.unknown);
  MergeTable merges = scored_merges(data, vocabulary);
  const std::string mark(kSpaceMark);
  std::vector<Normalizer::Step> normalizer;
  if (space_prefix) normalizer.push_back(Normalizer::Prepend{mark});
  normalizer.push_back(Normalizer::Replace{Pattern(" "), mark});
  std::vector<Decoder::Step> decoder{Decoder::Replace{Pattern(mark), " "}, Decoder::ByteFallback{}, Decoder::Fuse{}};
  if (space_prefix) decoder.push_back(Decoder::Strip{" ", 1, 0});
  return {Bpe(std::move(vocabulary), std::move(merges), options), Normalizer(std::move(normalizer)), PreTokenizer(),
          Decoder(std::move(decoder)), true};
}

}  // namespace

GgufTokenizerData gguf_tokenizer_data(const GgufMetadata& metadata) {
  const auto key = [](std::string_view name) { return fmt::format("tokenizer.ggml.{}", name); };
  GgufTokenizerData data;
  data.file = metadata.file().string();
  data.model = metadata.require_str(key("model"));
  data.pre = metadata.str(key("pre")).value_or("");
  data.tokens = metadata.strings(key("tokens"));
  data.merges = metadata.strings(key("merges"));
  data.scores = metadata.floats(key("scores"));
  data.types = metadata.i32s(key("token_type"));
  data.add_bos = metadata.boolean(key("add_bos_token"));
  data.add_eos = metadata.boolean(key("add_eos_token"));
  data.add_space_prefix = metadata.boolean(key("add_space_prefix"));
  data.bos = metadata.u64(key("bos_token_id"));
  data.eos = metadata.u64(key("eos_token_id"));
  data.eot = metadata.u64(key("eot_token_id"));
  data.eom = metadata.u64(key("eom_token_id"));
  data.unknown = metadata.u64(key("unknown_token_id"));
  return data;
}

TokenizerParts make_tokenizer(const GgufTokenizerData& data) {
  check(data);
  Vocabulary vocabulary = make_vocabulary(data);
  std::vector<AddedToken> added = added_tokens(data, vocabulary);
  if (data.model != "llama" && data.model != "gpt2")
    fail("{}: tokenizer.ggml.model: expected \"llama\" or \"gpt2\", got \"{}\"", data.file, printable(data.model));
  Words words =
      data.model == "llama" ? llama_words(data, std::move(vocabulary)) : gpt2_words(data, std::move(vocabulary));
  TokenizerParts parts{std::move(words.bpe),
                       std::move(added),
                       std::move(words.normalizer),
                       std::move(words.pre_tokenizer),
                       std::move(words.decoder),
                       {},
                       {},
                       checked_id(data, "bos", data.bos),
                       {}};
  const auto add_eos = [&](std::string_view key, std::optional<uint64_t> id) {
    const auto checked = checked_id(data, key, id);
    if (checked && std::find(parts.eos.begin(), parts.eos.end(), *checked) == parts.eos.end())
      parts.eos.push_back(*checked);
  };
  add_eos("eos", data.eos);
  if (data.add_bos.value_or(words.add_bos)) {
    if (!parts.bos && data.add_bos)
      fail("{}: tokenizer.ggml.add_bos_token is true, but there is no bos_token_id", data.file);
    if (parts.bos) parts.prefix.push_back(*parts.bos);
  }
  if (data.add_eos.value_or(false)) {
    if (parts.eos.empty()) fail("{}: tokenizer.ggml.add_eos_token is true, but there is no eos_token_id", data.file);
    parts.suffix.push_back(parts.eos[0]);
  }
  add_eos("eot", data.eot);
  add_eos("eom", data.eom);
  return parts;
}

}  // namespace llorch
