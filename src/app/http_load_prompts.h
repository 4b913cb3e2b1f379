// Random prompts of an exact number of tokens.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "text/tokenizer.h"

namespace llorch {

// Texts that the tokenizer makes exactly `n_tokens` of, BOS and the like included, from random pieces of its own
// vocabulary; the same seed gives the same. Throws InputError if no such text is found: `n_tokens` is fewer than what
// stands around any text, or the pieces join to others wherever they meet.
std::vector<std::string> make_prompts(const Tokenizer& tokenizer, size_t count, size_t n_tokens, uint64_t seed);

}  // namespace llorch
