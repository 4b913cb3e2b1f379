// Compiling and matching with PCRE2, and the rewriting of Oniguruma patterns.
#define PCRE2_CODE_UNIT_WIDTH 8
#include "text/regex.h"

#include <pcre2.h>

#include <algorithm>
#include <memory>
#include <new>
#include <optional>

#include "base/error.h"
#include "format/printable.h"
#include "text/utf8.h"

namespace llorch {
namespace {

constexpr size_t kMaxPatternBytes = 1 << 16;
// Backtracking steps for one start position: real patterns need one for each byte at most (\s*[\r\n]+ in a run of
// spaces). A hostile pattern can so be quadratic in the text, never exponential.
constexpr size_t kMatchSteps = 10'000, kMatchStepsPerByte = 16;
constexpr uint32_t kHeapLimitKiB = 64 << 10;
constexpr size_t kMaxReplacedBytes = 64 << 20;

// Unicode's White_Space and what is not. PCRE2's own \s has U+180E in addition.
constexpr std::string_view kSpace =
    R"(\x{9}-\x{d}\x{20}\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000})";
constexpr std::string_view kNotSpace =
    R"(\x{0}-\x{8}\x{e}-\x{1f}\x{21}-\x{84}\x{86}-\x{9f}\x{a1}-\x{167f}\x{1681}-\x{1fff}\x{200b}-\x{2027})"
    R"(\x{202a}-\x{202e}\x{2030}-\x{205e}\x{2060}-\x{2fff}\x{3001}-\x{10ffff})";
// What Oniguruma matches, found by trying every character. PCRE2's own \w is \p{L}\p{N}_
constexpr std::string_view kWord = R"(\p{L}\p{M}\p{Nd}\p{Nl}\p{Pc}\x{b2}\x{b3}\x{b9}\x{bc}-\x{be}\x{24b6}-\x{24e9})"
                                   R"(\x{1f130}-\x{1f149}\x{1f150}-\x{1f169}\x{1f170}-\x{1f189})";
constexpr std::string_view kHex = "0-9a-fA-F";  // PCRE2's own \h is horizontal space

// The members of an Oniguruma class escape (\s, \W, ...), and whether it is the complement that they make.
struct ClassEscape {
  std::string_view members;
  bool complement;
};

std::optional<ClassEscape> class_escape(char letter) {
  switch (letter) {
    case 's':
      return ClassEscape{kSpace, false};
    case 'S':
      return ClassEscape{kNotSpace, false};
    case 'w':
      return ClassEscape{kWord, false};
    case 'W':
      return ClassEscape{kWord, true};
    case 'h':
      return ClassEscape{kHex, false};
    case 'H':
      return ClassEscape{kHex, true};
    default:
      return std::nullopt;
  }
}

// The pattern in PCRE2's dialect.
std::string from_oniguruma(std::string_view pattern, const std::string& where) {
  if (pattern.starts_with("(*")) fail("{}: a pattern cannot start with \"(*\"", where);
  std::string out;
  bool in_class = false;
  for (size_t i = 0; i < pattern.size(); ++i) {
    const std::string_view rest = pattern.substr(i);
    if (rest[0] == '\\' && rest.size() > 1) {
      const auto escape = class_escape(rest[1]);
      if (!escape) {
        out.append(rest.substr(0, 2));
      } else if (!in_class) {
        out.append(escape->complement ? "[^" : "[").append(escape->members).append("]");
      } else {
        if (escape->complement) fail("{}: \"\\{}\" inside [...] is not supported", where, rest[1]);
        out.append(escape->members);
      }
      ++i;
    } else if (!in_class && rest[0] == '[') {
      in_class = true;
      const size_t open = rest.starts_with("[^") ? 2 : 1;
      const size_t taken = open + (rest.substr(open).starts_with("]") ? 1 : 0);  // a leading ] stands for itself
      out.append(rest.substr(0, taken));
      i += taken - 1;
    } else if (in_class && rest.starts_with("[:")) {
      const size_t close = std::min(rest.find(":]"), rest.size() - 2) + 2;
      out.append(rest.substr(0, close));
      i += close - 1;
    } else {
      if (in_class && rest[0] == '[') fail("{}: a class inside a class is not supported", where);
      if (in_class && rest.starts_with("&&")) fail("{}: \"&&\" inside [...] is not supported", where);
      if (rest[0] == ']') in_class = false;
      out.push_back(rest[0]);
    }
  }
  return out;
}

std::string pcre2_message(int code) {
  PCRE2_UCHAR buffer[256] = {};
  pcre2_get_error_message(code, buffer, sizeof(buffer));
  return reinterpret_cast<const char*>(buffer);
}

std::vector<Span> find_literal(std::string_view text, std::string_view literal) {
  std::vector<Span> found;
  if (literal.empty()) return found;
  for (size_t at = text.find(literal); at != text.npos; at = text.find(literal, at + literal.size()))
    found.push_back({at, at + literal.size()});
  return found;
}

}  // namespace

Regex::Regex(std::string_view pattern, const std::string& where) : where_(where) {
  if (pattern.size() > kMaxPatternBytes)
    fail("{}: a pattern has {} bytes, at most {} are allowed", where, pattern.size(), kMaxPatternBytes);
  const std::string translated = from_oniguruma(pattern, where);
  int error = 0;
  PCRE2_SIZE offset = 0;
  // In Ruby's syntax ^ and $ always match at line ends.
  const uint32_t options = PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C;
  code_.reset(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(translated.data()), translated.size(), options, &error,
                            &offset, nullptr),
              pcre2_code_free);
  if (!code_) fail("{}: the pattern \"{}\" does not compile: {}", where, printable(pattern), pcre2_message(error));
  pcre2_jit_compile(code_.get(), PCRE2_JIT_COMPLETE);  // where there is no JIT the interpreter does the same
}

std::vector<Span> Regex::find_all(std::string_view text) const {
  const auto release = [](pcre2_match_data* data) { pcre2_match_data_free(data); };
  const std::unique_ptr<pcre2_match_data, decltype(release)> data(pcre2_match_data_create(1, nullptr), release);
  if (!data) throw std::bad_alloc();
  const auto forget = [](pcre2_match_context* context) { pcre2_match_context_free(context); };
  const std::unique_ptr<pcre2_match_context, decltype(forget)> limits(pcre2_match_context_create(nullptr), forget);
  if (!limits) throw std::bad_alloc();
  const size_t steps = std::min<size_t>(kMatchSteps + kMatchStepsPerByte * text.size(), UINT32_MAX);
  pcre2_set_match_limit(limits.get(), static_cast<uint32_t>(steps));
  pcre2_set_heap_limit(limits.get(), kHeapLimitKiB);
  const auto* subject = reinterpret_cast<PCRE2_SPTR>(text.data() != nullptr ? text.data() : "");
  std::vector<Span> found;
  size_t from = 0;
  while (from <= text.size()) {
    // Without NO_UTF_CHECK each call would check the whole text again: quadratic.
    int rc = pcre2_match(code_.get(), subject, text.size(), from, PCRE2_NO_UTF_CHECK, data.get(), limits.get());
    if (rc == PCRE2_ERROR_JIT_STACKLIMIT)
      rc = pcre2_match(code_.get(), subject, text.size(), from, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, data.get(),
                       limits.get());
    if (rc == PCRE2_ERROR_NOMATCH) break;
    if (rc < 0) fail("{}: matching failed on a text of {} bytes: {}", where_, text.size(), pcre2_message(rc));
    const PCRE2_SIZE* ends = pcre2_get_ovector_pointer(data.get());
    const Span match{ends[0], ends[1]};
    if (match.begin < from || match.end < match.begin) fail("{}: the pattern matches backwards", where_);
    if (match.begin == match.end && !found.empty() && found.back().end == match.end) {
      from += from < text.size() ? utf8_length(text[from]) : 1;
      continue;
    }
    found.push_back(match);
    from = match.end;
  }
  return found;
}

std::vector<Span> Pattern::find_all(std::string_view text) const {
  if (const auto* regex = std::get_if<Regex>(&pattern_)) return regex->find_all(text);
  return find_literal(text, std::get<std::string>(pattern_));
}

std::string Pattern::replace_all(std::string_view text, std::string_view content) const {
  std::string out;
  out.reserve(text.size());
  size_t from = 0;
  for (const Span match : find_all(text)) {
    out.append(text.substr(from, match.begin - from)).append(content);
    from = match.end;
    if (out.size() > kMaxReplacedBytes)
      fail("replacing makes more than {} bytes of a text of {}", kMaxReplacedBytes, text.size());
  }
  return out.append(text.substr(from));
}

}  // namespace llorch
