// Leftmost longest search for the tokens of a set.
#include "text/added_tokens.h"

#include <algorithm>

#include "text/unicode.h"
#include "text/utf8.h"

namespace llorch {
namespace {

unsigned char byte_at(const std::string& content, size_t depth) { return static_cast<unsigned char>(content[depth]); }

bool starts_with_word(std::string_view text) { return !text.empty() && is_word_character(read_utf8(text).code); }
bool ends_with_word(std::string_view text) { return !text.empty() && is_word_character(last_character(text)); }

}  // namespace

AddedTokens::AddedTokens(std::vector<AddedToken> tokens) : tokens_(std::move(tokens)) {
  std::erase_if(tokens_, [](const AddedToken& token) { return token.content.empty(); });
  std::stable_sort(tokens_.begin(), tokens_.end(), [](const auto& a, const auto& b) { return a.content < b.content; });
  const auto same = [](const AddedToken& a, const AddedToken& b) { return a.content == b.content; };
  tokens_.erase(std::unique(tokens_.begin(), tokens_.end(), same), tokens_.end());
  for (size_t i = 0; i < tokens_.size(); ++i) {
    auto& range = starts_[byte_at(tokens_[i].content, 0)];
    if (range.second == 0) range.first = i;
    range.second = i + 1;
  }
}

// The longest token that text starts with, or nullptr. Narrows the range of tokens byte by byte: std::string compares
// bytes as unsigned, so those that agree so far are neighbours, the shortest first.
const AddedToken* AddedTokens::longest_at(std::string_view text) const {
  auto [low, high] = starts_[static_cast<unsigned char>(text[0])];
  const AddedToken* best = nullptr;
  for (size_t depth = 1; low < high; ++depth) {
    if (tokens_[low].content.size() == depth) best = &tokens_[low++];
    if (depth == text.size()) break;
    const auto byte = static_cast<unsigned char>(text[depth]);
    const auto first = tokens_.begin();
    const auto begin = std::partition_point(
        first + low, first + high, [&](const AddedToken& token) { return byte_at(token.content, depth) < byte; });
    const auto end = std::partition_point(
        begin, first + high, [&](const AddedToken& token) { return byte_at(token.content, depth) == byte; });
    low = static_cast<size_t>(begin - first);
    high = static_cast<size_t>(end - first);
  }
  return best;
}

std::vector<Segment> AddedTokens::split(std::string_view text) const {
  std::vector<Segment> segments;
  size_t done = 0;  // everything before it is in a segment
  for (size_t at = 0; at < text.size();) {
    const AddedToken* token = longest_at(text.substr(at));
    if (token == nullptr) {
      ++at;
      continue;
    }
    size_t begin = at;
    size_t end = at + token->content.size();
    at = end;
    if (token->single_word && (ends_with_word(text.substr(0, begin)) || starts_with_word(text.substr(end)))) continue;
    if (token->lstrip && begin > done) begin -= trailing_space(text.substr(done, begin - done));
    if (token->rstrip) {
      end = std::max(end, done);  // up to there the token before has taken the white space already
      end += leading_space(text.substr(end));
    }
    if (done < begin) segments.push_back({std::nullopt, done, begin});
    segments.push_back({token->id, begin, end});
    done = end;
  }
  if (done < text.size()) segments.push_back({std::nullopt, done, text.size()});
  return segments;
}

}  // namespace llorch
