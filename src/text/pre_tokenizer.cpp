// The steps of a pre-tokenizer.
#include "text/pre_tokenizer.h"

#include <algorithm>

#include "text/byte_level.h"

namespace llorch {
namespace {

struct Part {
  Span span;
  bool separates;
};

// The whole text as matches and what lies between them.
std::vector<Part> parts_of(const std::vector<Span>& matches, size_t size, bool invert) {
  std::vector<Part> parts;
  size_t from = 0;
  for (const Span match : matches) {
    if (from != match.begin) parts.push_back({{from, match.begin}, invert});
    parts.push_back({match, !invert});
    from = match.end;
  }
  if (from != size) parts.push_back({{from, size}, invert});
  return parts;
}

// Joins each separator to the part before it, unless that was a separator too.
void merge_with_previous(const std::vector<Part>& parts, std::vector<Span>& out) {
  bool after_separator = false;
  for (const Part& part : parts) {
    if (part.separates && !after_separator && !out.empty()) {
      out.back().end = part.span.end;
    } else {
      out.push_back(part.span);
    }
    after_separator = part.separates;
  }
}

void merge_with_next(const std::vector<Part>& parts, std::vector<Span>& out) {
  bool before_separator = false;
  for (auto part = parts.rbegin(); part != parts.rend(); ++part) {
    if (part->separates && !before_separator && !out.empty()) {
      out.back().begin = part->span.begin;
    } else {
      out.push_back(part->span);
    }
    before_separator = part->separates;
  }
  std::reverse(out.begin(), out.end());
}

void merge_contiguous(const std::vector<Part>& parts, std::vector<Span>& out) {
  bool last = false;
  for (const Part& part : parts) {
    if (part.separates == last && !out.empty()) {
      out.back().end = part.span.end;
    } else {
      out.push_back(part.span);
    }
    last = part.separates;
  }
}

}  // namespace

std::vector<Span> PreTokenizer::cut(std::string_view text, const Pattern& pattern, Behavior behavior, bool invert) {
  const std::vector<Part> parts = parts_of(pattern.find_all(text), text.size(), invert);
  std::vector<Span> out;
  out.reserve(parts.size());
  switch (behavior) {
    case Behavior::kRemoved:
      for (const Part& part : parts)
        if (!part.separates) out.push_back(part.span);
      break;
    case Behavior::kIsolated:
      for (const Part& part : parts) out.push_back(part.span);
      break;
    case Behavior::kMergedWithPrevious:
      merge_with_previous(parts, out);
      break;
    case Behavior::kMergedWithNext:
      merge_with_next(parts, out);
      break;
    case Behavior::kContiguous:
      merge_contiguous(parts, out);
      break;
  }
  return out;
}

void PreTokenizer::run(size_t step, std::string_view text, bool at_start, const Sink& sink) const {
  if (text.empty()) return;
  if (step == steps_.size()) {
    sink(text);
    return;
  }
  const auto next = [&](std::string_view all, Span part) {
    run(step + 1, all.substr(part.begin, part.end - part.begin), at_start && part.begin == 0, sink);
  };
  if (const auto* split = std::get_if<Split>(&steps_[step])) {
    for (const Span part : cut(text, split->pattern, split->behavior, split->invert)) next(text, part);
  } else if (const auto* bytes = std::get_if<ByteLevel>(&steps_[step])) {
    std::string prefixed;
    if (bytes->add_prefix_space && text[0] != ' ') text = prefixed.append(" ").append(text);
    std::vector<Span> words{{0, text.size()}};
    if (bytes->words) words = cut(text, *bytes->words, Behavior::kIsolated, false);
    for (const Span word : words) {
      const std::string mapped = to_byte_alphabet(text.substr(word.begin, word.end - word.begin));
      run(step + 1, mapped, at_start && word.begin == 0, sink);
    }
  } else {
    const auto& metaspace = std::get<Metaspace>(steps_[step]);
    std::string marked = Pattern(" ").replace_all(text, metaspace.replacement);
    const bool prepend =
        metaspace.prepend == PrependScheme::kAlways || (metaspace.prepend == PrependScheme::kFirst && at_start);
    if (prepend && !marked.starts_with(metaspace.replacement)) marked.insert(0, metaspace.replacement);
    std::vector<Span> words{{0, marked.size()}};
    if (metaspace.split) words = cut(marked, Pattern(metaspace.replacement), Behavior::kMergedWithNext, false);
    for (const Span word : words) next(marked, word);
  }
}

}  // namespace llorch
