// Pieces are joined and the whole is tokenized again: neighbours may join to other tokens than the ones drawn.
#include "app/http_load_prompts.h"

#include <fmt/format.h>

#include <algorithm>
#include <random>

#include "app/commands.h"

namespace llorch {
namespace {

constexpr int kAttempts = 1000;

// Texts of tokens that are text by themselves: whole characters that can be seen, or spaces.
std::vector<std::string> plain_pieces(const Tokenizer& tokenizer) {
  constexpr std::string_view kReplacement = "\xEF\xBF\xBD";
  std::vector<std::string> out;
  for (size_t id = 0; id < tokenizer.vocab_size(); ++id) {
    const auto token = static_cast<int32_t>(id);
    if (tokenizer.is_special(token) || tokenizer.piece(token).empty()) continue;
    std::string text = tokenizer.decode({&token, 1}, true);
    const bool plain = !text.empty() && text.find(kReplacement) == std::string::npos &&
                       text.find_first_not_of(' ') != std::string::npos &&
                       std::none_of(text.begin(), text.end(), [](char c) { return c >= 0 && c < ' '; });
    if (plain) out.push_back(std::move(text));
  }
  return out;
}

// About half as many pieces as so many tokens are, and at least one: a step that is too long leads to and fro.
size_t pieces_of(size_t tokens, size_t tokens_of_text, size_t pieces_of_text) {
  if (tokens_of_text == 0) return 1;
  return std::max<size_t>(1, tokens * pieces_of_text / tokens_of_text / 2);
}

}  // namespace

std::vector<std::string> make_prompts(const Tokenizer& tokenizer, size_t count, size_t n_tokens, uint64_t seed) {
  const std::vector<std::string> pieces = plain_pieces(tokenizer);
  if (pieces.empty()) throw InputError("the vocabulary has no token that is text by itself");
  std::mt19937_64 random(seed);
  std::vector<std::string> prompts;
  std::vector<std::string> text;  // pieces of the prompt in the making
  for (int attempt = 0; prompts.size() < count; ++attempt) {
    std::string joined;
    for (const std::string& piece : text) joined += piece;
    const size_t tokens = joined.empty() ? 0 : tokenizer.encode(joined, true).size();
    if (tokens == n_tokens) {
      prompts.push_back(std::move(joined));
      text.clear();
      attempt = 0;
    } else if (attempt == kAttempts) {
      throw InputError(
          fmt::format("--prompt-tokens {}: no text of so many tokens was found; a text of {} pieces has {}", n_tokens,
                      text.size(), tokens));
    } else if (tokens > n_tokens) {  // some at random go, so that the next ones stand elsewhere
      for (size_t n = pieces_of(tokens - n_tokens, tokens, text.size()); n > 0; --n) {
        text.erase(text.begin() + static_cast<std::ptrdiff_t>(random() % text.size()));
      }
    } else {
      for (size_t n = pieces_of(n_tokens - tokens, tokens, text.size()); n > 0; --n) {
        text.push_back(pieces[random() % pieces.size()]);
      }
    }
  }
  return prompts;
}

}  // namespace llorch
