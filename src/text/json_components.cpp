// Normalizers, pre-tokenizers and decoders of tokenizer.json.
#include <functional>

#include "base/error.h"
#include "format/printable.h"
#include "text/json_tokenizer.h"

namespace llorch {
namespace {

constexpr size_t kMaxSteps = 64;  // of one component; real ones have up to 8

constexpr std::string_view kDigits = R"(\p{N})";
constexpr std::string_view kPunctuation = R"([\p{P}$+<=>^`|~])";
constexpr std::string_view kWhiteSpace = R"(\s)";
// \w+|[^\w\s]+ with \w as Rust's regex crate has it.
constexpr std::string_view kWordsAndRest =
    R"([\p{L}\p{Nl}\p{M}\p{Nd}\p{Pc}\x{200c}\x{200d}\x{24b6}-\x{24e9}\x{1f130}-\x{1f149}\x{1f150}-\x{1f169}\x{1f170}-\x{1f189}]+)"
    R"(|[^\p{L}\p{Nl}\p{M}\p{Nd}\p{Pc}\x{200c}\x{200d}\x{24b6}-\x{24e9}\x{1f130}-\x{1f149}\x{1f150}-\x{1f169}\x{1f170}-\x{1f189}\s]+)";

// Calls add(type, component) for the component, or for each of a Sequence in their order (members: the key of its
// list). The nesting is bounded by the depth that JSON files may have.
void each_component(const JsonField& field, const char* members,
                    const std::function<void(const std::string&, const JsonField&)>& add) {
  const std::string& type = field.at("type").string();
  if (type != "Sequence") {
    add(type, field);
    return;
  }
  const JsonField list = field.at(members);
  for (size_t i = 0; i < list.size(); ++i) each_component(list.element(i), members, add);
}

template <typename Step>
std::vector<Step> steps_of(const std::optional<JsonField>& field, const char* members,
                           const std::function<Step(const std::string&, const JsonField&)>& make) {
  std::vector<Step> steps;
  if (!field) return steps;
  each_component(*field, members, [&](const std::string& type, const JsonField& component) {
    if (steps.size() == kMaxSteps) fail("{}: more than {} steps", field->path(), kMaxSteps);
    steps.push_back(make(type, component));
  });
  return steps;
}

[[noreturn]] void unknown_type(const JsonField& field, std::string_view component, std::string_view known) {
  fail("{}: {} of type \"{}\" is not supported; known: Sequence, {}", field.path(), component,
       printable(field.at("type").string()), known);
}

Pattern pattern_of(const JsonField& field) {
  if (const auto literal = field.find("String")) return Pattern(literal->string());
  const JsonField regex = field.at("Regex");
  return Pattern(Regex(regex.string(), regex.path()));
}

Pattern expression(std::string_view pattern) { return Pattern(Regex(pattern, "built-in expression")); }

PreTokenizer::Behavior behavior_of(const JsonField& field) {
  using Behavior = PreTokenizer::Behavior;
  const std::string& name = field.string();
  if (name == "Removed") return Behavior::kRemoved;
  if (name == "Isolated") return Behavior::kIsolated;
  if (name == "MergedWithPrevious") return Behavior::kMergedWithPrevious;
  if (name == "MergedWithNext") return Behavior::kMergedWithNext;
  if (name == "Contiguous") return Behavior::kContiguous;
  field.wrong("Removed, Isolated, MergedWithPrevious, MergedWithNext or Contiguous");
}

// Old files say add_prefix_space instead of prepend_scheme.
PreTokenizer::PrependScheme prepend_of(const JsonField& field) {
  using Scheme = PreTokenizer::PrependScheme;
  const auto scheme = field.find("prepend_scheme");
  if (!scheme) return field.boolean_or("add_prefix_space", true) ? Scheme::kAlways : Scheme::kNever;
  const std::string& name = scheme->string();
  if (name == "always") return Scheme::kAlways;
  if (name == "first") return Scheme::kFirst;
  if (name == "never") return Scheme::kNever;
  scheme->wrong("always, first or never");
}

Normalizer::Step normalizer_step(const std::string& type, const JsonField& field) {
  if (type == "Prepend") return Normalizer::Prepend{field.at("prepend").string()};
  if (type == "Replace") return Normalizer::Replace{pattern_of(field.at("pattern")), field.at("content").string()};
  if (type == "NFC") return Normalizer::Unicode{NormalForm::kNfc};
  if (type == "NFD") return Normalizer::Unicode{NormalForm::kNfd};
  if (type == "NFKC") return Normalizer::Unicode{NormalForm::kNfkc};
  if (type == "NFKD") return Normalizer::Unicode{NormalForm::kNfkd};
  if (type == "Lowercase") return Normalizer::Lowercase{};
  if (type == "Strip")
    return Normalizer::Strip{field.boolean_or("strip_left", true), field.boolean_or("strip_right", true)};
  if (type == "StripAccents") return Normalizer::StripAccents{};
  unknown_type(field, "a normalizer", "Prepend, Replace, NFC, NFD, NFKC, NFKD, Lowercase, Strip, StripAccents");
}

PreTokenizer::Step pre_tokenizer_step(const std::string& type, const JsonField& field) {
  using Behavior = PreTokenizer::Behavior;
  if (type == "ByteLevel") {
    PreTokenizer::ByteLevel step{field.boolean_or("add_prefix_space", true), std::nullopt};
    if (field.boolean_or("use_regex", true)) step.words = expression(PreTokenizer::kGpt2Words);
    return step;
  }
  if (type == "Split")
    return PreTokenizer::Split{pattern_of(field.at("pattern")), behavior_of(field.at("behavior")),
                               field.boolean_or("invert", false)};
  if (type == "Metaspace") {
    const auto scheme = prepend_of(field);
    return PreTokenizer::Metaspace{field.at("replacement").character(), scheme, field.boolean_or("split", true)};
  }
  if (type == "Digits") {
    const bool each = field.boolean_or("individual_digits", false);
    return PreTokenizer::Split{expression(kDigits), each ? Behavior::kIsolated : Behavior::kContiguous, false};
  }
  if (type == "Whitespace") return PreTokenizer::Split{expression(kWordsAndRest), Behavior::kRemoved, true};
  if (type == "WhitespaceSplit") return PreTokenizer::Split{expression(kWhiteSpace), Behavior::kRemoved, false};
  if (type == "Punctuation") {
    const auto behavior = field.find("behavior");
    return PreTokenizer::Split{expression(kPunctuation), behavior ? behavior_of(*behavior) : Behavior::kIsolated,
                               false};
  }
  unknown_type(field, "a pre-tokenizer",
               "ByteLevel, Split, Metaspace, Digits, Whitespace, WhitespaceSplit, Punctuation");
}

Decoder::Step decoder_step(const std::string& type, const JsonField& field) {
  constexpr int64_t kMaxStrip = 1024;
  if (type == "ByteLevel") return Decoder::ByteLevel{};
  if (type == "Replace") return Decoder::Replace{pattern_of(field.at("pattern")), field.at("content").string()};
  if (type == "ByteFallback") return Decoder::ByteFallback{};
  if (type == "Fuse") return Decoder::Fuse{};
  if (type == "Strip")
    return Decoder::Strip{field.at("content").character(), static_cast<size_t>(field.at("start").integer(0, kMaxStrip)),
                          static_cast<size_t>(field.at("stop").integer(0, kMaxStrip))};
  if (type == "Metaspace") {
    const bool drop_first = prepend_of(field) != PreTokenizer::PrependScheme::kNever;
    return Decoder::Metaspace{field.at("replacement").character(), drop_first};
  }
  unknown_type(field, "a decoder", "ByteLevel, Replace, ByteFallback, Fuse, Strip, Metaspace");
}

}  // namespace

Normalizer make_normalizer(const std::optional<JsonField>& field) {
  return Normalizer(steps_of<Normalizer::Step>(field, "normalizers", normalizer_step));
}

PreTokenizer make_pre_tokenizer(const std::optional<JsonField>& field) {
  return PreTokenizer(steps_of<PreTokenizer::Step>(field, "pretokenizers", pre_tokenizer_step));
}

Decoder make_decoder(const std::optional<JsonField>& field) {
  if (!field) {
    std::vector<Decoder::Step> join;
    join.push_back(Decoder::Join{" "});
    return Decoder(std::move(join));
  }
  std::vector<Decoder::Step> steps = steps_of<Decoder::Step>(field, "decoders", decoder_step);
  try {
    return Decoder(std::move(steps));
  } catch (const Error& error) {
    fail("{}: {}", field->path(), error.what());
  }
}

}  // namespace llorch
